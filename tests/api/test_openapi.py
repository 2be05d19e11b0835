"""The OpenAPI document is valid, complete, and the page for people shows all of it."""

from __future__ import annotations

import re
from collections import Counter

from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route

from encoder_api.endpoints import OPERATIONS
from encoder_api.problems import PROBLEMS
from encoder_core.specs import JobRequest
from tests.api.conftest import CheckedClient

UNDOCUMENTED = {"/", "/docs", "/docs/style.css", "/openapi.json"}


def test_the_document_is_valid(client: CheckedClient) -> None:
    OpenAPIV31SpecValidator(client.document).validate()


def test_every_route_is_documented(client: CheckedClient) -> None:
    routes = {r.path for r in client.app.router.routes if isinstance(r, Route)}  # type: ignore[attr-defined]  # the app as ASGI
    assert routes - UNDOCUMENTED == set(client.document["paths"])


def test_every_operation_says_what_it_does() -> None:
    names = Counter(operation.name for operation in OPERATIONS)
    assert set(names.values()) == {1}
    for operation in OPERATIONS:
        assert operation.summary.endswith("."), operation.name
        assert all(reply.says for reply in operation.replies.values())


def test_an_answer_that_names_a_job_links_to_what_can_be_asked_of_it(client: CheckedClient) -> None:
    named = {
        operation.name
        for operation in OPERATIONS
        for reply in operation.replies.values()
        if reply.model is not None and "uuid" in reply.model.model_fields
    }
    linked = {
        operation["operationId"]
        for path in client.document["paths"].values()
        for operation in path.values()
        if any("links" in reply for reply in operation["responses"].values())
    }
    assert linked == named - {"delete_job"}  # which names one that is gone


def test_every_problem_type_is_documented(client: CheckedClient) -> None:
    assert [p["type"] for p in client.document["x-problems"]] == [
        kind.uri for kind in PROBLEMS.values()
    ]
    said = {code for operation in OPERATIONS for code in operation.problems}
    assert set(PROBLEMS) - said == {"method_not_allowed", "head_too_large"}


def test_fields_bring_their_descriptions(client: CheckedClient) -> None:
    schemas = client.document["components"]["schemas"]
    assert "ffmpeg encoder" in schemas["OutputSpec"]["properties"]["videoCodec"]["description"]
    assert schemas["S3Source"]["properties"]["access_key_secret"]["anyOf"][0]["writeOnly"]


def test_the_example_is_a_request_that_is_accepted(client: CheckedClient) -> None:
    content = client.document["paths"]["/jobs"]["post"]["requestBody"]["content"]
    for example in content["application/json"]["examples"].values():
        JobRequest.model_validate(example["value"])


def test_an_example_of_an_answer_is_one_that_could_be_given(client: CheckedClient) -> None:
    examples = 0
    for path in client.document["paths"].values():
        for operation in path.values():
            for reply in operation["responses"].values():
                for content in reply.get("content", {}).values():
                    if "example" in content:
                        schema = {**content["schema"], "components": client.document["components"]}
                        Draft202012Validator(schema).validate(content["example"])
                        examples += 1
    assert examples >= 2


def test_the_page_shows_every_operation_and_problem(client: CheckedClient) -> None:
    page = client.get("/docs").text
    for operation in OPERATIONS:
        assert f'id="{operation.name}"' in page
    for kind in PROBLEMS.values():
        assert kind.uri in page
    assert set(re.findall(r'(?:src|href)="([^"#]+)"', page)) == {
        "/docs/style.css",
        "/openapi.json",
    }
    assert client.get("/docs/style.css").headers["content-type"].startswith("text/css")
