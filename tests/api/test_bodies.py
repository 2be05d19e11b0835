"""A body is read as strictly as JSON can be read."""

from __future__ import annotations

from typing import Any

import pytest

from encoder_api.bodies import MAX_DEPTH, MAX_MEMBERS, MAX_NODES, check_media_type, parse_json
from encoder_api.problems import Problem


@pytest.mark.parametrize(
    ("body", "want"),
    [
        pytest.param(
            b'{"a": [1, 2.5, "x", null, true]}', {"a": [1, 2.5, "x", None, True]}, id="all"
        ),
        pytest.param(b" \n[]\t", [], id="space around it"),
        pytest.param('"ü 🎬"'.encode(), "ü 🎬", id="any Unicode text"),
        pytest.param(rb'"\ud83c\udfac"', "🎬", id="a whole surrogate pair"),
        pytest.param(b"null", None, id="null is JSON, and for the model to refuse"),
        pytest.param(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, ..., id="as deep as allowed"),
    ],
)
def test_json_is_read(body: bytes, want: Any) -> None:
    read = parse_json(body)
    assert want is ... or read == want


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="half an object"),
        pytest.param(b"{} {}", id="two documents"),
        pytest.param(b"{'a': 1}", id="single quotes"),
        pytest.param(b'{"a": 1,}', id="a comma too many"),
        pytest.param(b'{"a": 1, "a": 2}', id="a member named twice"),
        pytest.param(b'{"o": {"a": 1, "a": 1}}', id="a member named twice further in"),
        pytest.param(b"[NaN]", id="NaN"),
        pytest.param(b"[-Infinity]", id="minus infinity"),
        pytest.param(b"[1e400]", id="more than a float holds"),
        pytest.param(b"[-1e400]", id="less than a float holds"),
        pytest.param(b"[" + b"9" * 5000 + b"]", id="five thousand digits"),
        pytest.param(b'"\xff"', id="not UTF-8"),
        pytest.param('{"ä": 1}'.encode("latin-1"), id="Latin 1"),
        pytest.param('{"a": 1}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b"\xef\xbb\xbf{}", id="a byte order mark"),
        pytest.param(rb'"\ud800"', id="half a surrogate pair"),
        pytest.param(rb'{"\udfff": 1}', id="half a surrogate pair as a name"),
        pytest.param(rb'"a\u0000b"', id="an escaped NUL"),
        pytest.param(b'"a\x00b"', id="a raw NUL"),
        pytest.param(b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2), id="too deep"),
        pytest.param(b"[" * 100_000, id="a hundred thousand levels"),
        pytest.param(b'{"a":' * 10_000 + b"1" + b"}" * 10_000, id="ten thousand objects deep"),
        pytest.param(
            b"{" + b",".join(b'"%d":0' % n for n in range(MAX_MEMBERS + 1)) + b"}",
            id="an object with too many members",
        ),
        pytest.param(b"[" + b'"",' * (MAX_NODES + 1) + b'""]', id="an array with too many items"),
    ],
)
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(Problem) as refused:
        parse_json(body)
    assert refused.value.kind.code == "malformed_body"


def test_a_refusal_repeats_nothing_of_the_body() -> None:
    with pytest.raises(Problem) as refused:
        parse_json(b'{"password": canary}')
    assert "canary" not in refused.value.detail
    assert "line 1, column 14" in refused.value.detail


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "APPLICATION/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/json; profile=x",
    ],
)
def test_json_is_taken_by_any_spelling_of_its_type(content_type: str) -> None:
    check_media_type(content_type)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json-patch+json",
        "application/problem+json",
        "application/json; charset=latin-1",
        "text/plain; application/json",
    ],
)
def test_any_other_type_is_refused(content_type: str | None) -> None:
    with pytest.raises(Problem) as refused:
        check_media_type(content_type)
    assert refused.value.kind.status == 415
