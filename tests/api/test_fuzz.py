"""Whatever is sent, the answer is one that the document announces, and never a 500."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from encoder_core.specs import JobRequest, OutputSpec, S3Destination
from tests.api.conftest import CheckedClient
from tests.original import ORIGINAL

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["2500k", "s3", "http://a/b", "copy", "none", "hls", "default", "-1", "1e9"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
NAMES = st.text(max_size=10) | st.sampled_from(
    [
        field.alias or name
        for model in (JobRequest, OutputSpec, S3Destination)
        for name, field in model.model_fields.items()
    ]
)


@st.composite
def requests(draw: st.DrawFn) -> Any:
    """The original request with a few members replaced, added or taken away, at any depth."""
    document: Any = copy.deepcopy(ORIGINAL)
    for _ in range(draw(st.integers(1, 3))):
        target = document
        while True:
            keys = list(target) if isinstance(target, dict) else list(range(len(target)))
            inner = [key for key in keys if isinstance(target[key], (dict, list)) and target[key]]
            if not inner or draw(st.booleans()):
                break
            target = target[draw(st.sampled_from(inner))]
        if isinstance(target, list):
            target.append(draw(VALUES))
        elif target and draw(st.booleans()):
            del target[draw(st.sampled_from(sorted(target)))]
        else:
            target[draw(NAMES)] = draw(VALUES)
    return document


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(document=requests() | VALUES)
def test_any_json_is_accepted_or_refused(client: CheckedClient, document: Any) -> None:
    headers = {"Content-Type": "application/json"}
    response = client.post("/jobs", content=json.dumps(document), headers=headers)
    assert response.status_code in (202, 400, 409, 422), response.text
    if response.status_code == 202:
        assert client.get(response.headers["location"]).status_code == 200


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    body=st.binary(max_size=60) | st.text(max_size=60).map(str.encode),
    content_type=st.sampled_from(["application/json", "application/json; charset=utf-8", "text/a"]),
)
def test_any_bytes_are_refused(client: CheckedClient, body: bytes, content_type: str) -> None:
    response = client.post("/jobs", content=body, headers={"Content-Type": content_type})
    assert response.status_code in (400, 415, 422)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    query=st.dictionaries(
        st.sampled_from(["limit", "cursor", "status", "pool", "externalId", "after"]),
        st.text(max_size=20) | st.integers().map(str),
        max_size=3,
    ),
    path=st.sampled_from(["/jobs", "/jobs/1/events", "/jobs/1"]),
)
def test_any_query_is_answered(client: CheckedClient, query: dict[str, str], path: str) -> None:
    assert client.get(path, params=query).status_code in (200, 400, 404)
