"""What is wrong with a request is said by JSON pointer and in a sentence that says what to do."""

from __future__ import annotations

from copy import deepcopy
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

from encoder_api.fields import MAX_PROBLEMS, field_problems
from encoder_core.errors import FieldProblem
from encoder_core.model import Model
from encoder_core.specs import JobRequest

GOOD: dict[str, Any] = {
    "source": {"kind": "http", "url": "http://example.com/in.mp4"},
    "outputs": [{"destination": {"kind": "s3", "bucket": "bucket", "path": "out.mp4"}}],
}


def problems_of(document: Any, model: type[Model] = JobRequest) -> list[FieldProblem]:
    with pytest.raises(ValidationError) as invalid:
        model.model_validate(document)
    return field_problems(invalid.value, model)


def changed(pointer: str, value: Any) -> dict[str, Any]:
    """The good request with one value set or, with `...`, taken away."""
    document = deepcopy(GOOD)
    *path, last = pointer.split("/")[1:]
    target: Any = document
    for step in path:
        target = target[int(step)] if isinstance(target, list) else target[step]
    if value is ...:
        del target[last]
    elif isinstance(target, list):
        target[int(last)] = value
    else:
        target[last] = value
    return document


@pytest.mark.parametrize(
    ("document", "pointer", "code", "sentence"),
    [
        pytest.param(None, "", "wrong_type", "must be an object", id="null"),
        pytest.param([], "", "wrong_type", "must be an object", id="an array"),
        pytest.param("job", "", "wrong_type", "must be an object", id="a string"),
        pytest.param(changed("/source", ...), "/source", "required", "is required", id="no source"),
        pytest.param(
            changed("/source", {}), "/source/kind", "required", "is required", id="no kind"
        ),
        pytest.param(
            changed("/source/kind", "gopher"),
            "/source/kind",
            "not_allowed",
            'must be one of "s3", "http", "https", "ftp", "inline", "file"',
            id="an unknown kind",
        ),
        pytest.param(
            changed("/source/url", "gopher://x"),
            "/source/url",
            "invalid",
            "must begin with http:// or https://",
            id="the union's tag is no step",
        ),
        pytest.param(
            changed("/source", {"kind": "s3", "bucket": "bucket", "path": "a", "s3": 1}),
            "/source/s3",
            "unknown_field",
            "is not known here; known are kind, bucket, path, region, access_key_id, "
            "access_key_secret, session_token, endpoint, force_path_style",
            id="a member that is called like a tag",
        ),
        pytest.param(
            changed("/source", {"kind": "s3", "bucket": "bucket", "path": "a", "endpoint": "x"}),
            "/source/endpoint",
            "invalid",
            "must begin with http:// or https://",
            id="in the model of the tag",
        ),
        pytest.param(
            changed("/outputs", []), "/outputs", "too_short", "needs at least 1", id="none"
        ),
        pytest.param(
            changed("/outputs", {}), "/outputs", "wrong_type", "must be an array", id="no list"
        ),
        pytest.param(
            changed("/outputs/0/destination/bucket", ...),
            "/outputs/0/destination/bucket",
            "required",
            "is required",
            id="a missing member of a destination",
        ),
        pytest.param(
            changed("/outputs/0/destination/access_key_id", "AKIA"),
            "/outputs/0/destination",
            "invalid",
            "access_key_id and access_key_secret must be given together",
            id="a rule of the object points at the object",
        ),
        pytest.param(
            changed("/outputs/0/videoBitrat", "1M"),
            "/outputs/0/videoBitrat",
            "unknown_field",
            "is not known here; did you mean videoBitrate?",
            id="a slip of the pen",
        ),
        pytest.param(
            changed("/outputs/0/VideoBitrate", "1M"),
            "/outputs/0/VideoBitrate",
            "unknown_field",
            "is not known here; did you mean videoBitrate?",
            id="another case",
        ),
        pytest.param(
            changed("/outputs/0/videoBitrate", "1"),
            "/outputs/0/videoBitrate",
            "invalid",
            "must be between 1k and 1000M",
            id="too little",
        ),
        pytest.param(
            changed("/outputs/0/width", "wide"),
            "/outputs/0/width",
            "wrong_type",
            "must be a whole number",
            id="not a number",
        ),
        pytest.param(
            changed("/outputs/0/width", 7.5),
            "/outputs/0/width",
            "wrong_type",
            "must be a whole number",
            id="a fraction",
        ),
        pytest.param(
            changed("/outputs/0/width", 15),
            "/outputs/0/width",
            "out_of_range",
            "must be at least 16",
            id="too small",
        ),
        pytest.param(
            changed("/outputs/0/clip", {"duration": 0}),
            "/outputs/0/clip/duration",
            "out_of_range",
            "must be more than 0",
            id="an empty clip",
        ),
        pytest.param(
            changed("/outputs/0/renditions", [{"widht": 3}]),
            "/outputs/0/renditions/0/widht",
            "unknown_field",
            "is not known here; did you mean width?",
            id="in a list in a list",
        ),
        pytest.param(
            changed("/outputs/0/container", "avi"),
            "/outputs/0/container",
            "not_allowed",
            'must be one of "mp4", "mov", "mkv", "webm", "ts", "hls", "dash", "mp3", "m4a", "ogg", '
            '"opus", "flac", "wav", "gif", "jpg", "png" or "vtt"',
            id="an unknown container",
        ),
        pytest.param(
            changed("/metadata", {"a b/c": "x"}),
            "/metadata/a b~1c",
            "invalid",
            "has a name that must match ^[A-Za-z0-9_.-]{1,64}$",
            id="a bad name in a map",
        ),
        pytest.param(
            changed("/metadata", {"a": 1}),
            "/metadata/a",
            "wrong_type",
            "must be a string",
            id="a bad value in a map",
        ),
        pytest.param(
            changed("/source/headers", {"Host": "x"}),
            "/source/headers",
            "invalid",
            "Host is set by the service",
            id="a header of ours",
        ),
        pytest.param(
            changed("/notificationUrl", 3),
            "/notificationUrl",
            "wrong_type",
            "must be a string",
            id="3",
        ),
        pytest.param(
            changed("/" + "y" * 200, 1),
            "",
            "unknown_field",
            "is not known here; known are source, outputs, notificationUrl, pool, priority, "
            "startAt, externalId, metadata",
            id="an endless name is not repeated",
        ),
    ],
)
def test_one_problem(document: Any, pointer: str, code: str, sentence: str) -> None:
    assert problems_of(document) == [FieldProblem(pointer, code, sentence)]


def test_all_problems_are_said_at_once() -> None:
    document = changed("/source/url", "x://y")
    document["outputs"][0]["width"] = -1
    document["pool"] = "No Label"
    assert [problem.pointer for problem in problems_of(document)] == [
        "/source/url",
        "/outputs/0/width",
        "/pool",
    ]


def test_problems_without_end_are_cut_off() -> None:
    document = {**GOOD, **{f"x{n}": n for n in range(MAX_PROBLEMS * 3)}}
    assert len(problems_of(document)) == MAX_PROBLEMS


class Left(Model):
    side: Literal["left"]
    left: int


class Right(Model):
    side: Literal["right"]
    inner: list[Annotated[Left | Right, Field(discriminator="side")]] = []


def test_unions_in_lists_in_unions() -> None:
    document = {
        "side": "right",
        "inner": [{"side": "right", "inner": [{"side": "left", "left": "no"}]}],
    }
    assert problems_of(document, Right) == [
        FieldProblem("/inner/0/inner/0/left", "wrong_type", "must be a whole number")
    ]


def test_no_value_is_ever_repeated() -> None:
    canary = "canary-5f1c"
    for pointer in (
        *("/source/kind", "/source/url", "/outputs", "/outputs/0", "/outputs/0/destination"),
        *("/outputs/0/destination/bucket", "/outputs/0/destination/acl", "/outputs/0/container"),
        *("/outputs/0/destination/kind", "/outputs/0/width", "/outputs/0/videoBitrate"),
        *("/outputs/0/videoCodec", "/pool", "/priority", "/notificationUrl"),
    ):
        for value in (f"{canary}\x01 X", [canary], {"kind": canary}):
            for problem in problems_of(changed(pointer, value)):
                assert canary not in f"{problem.pointer} {problem.detail}", pointer
