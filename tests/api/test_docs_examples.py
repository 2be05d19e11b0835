"""What the pages give as an example is what the service takes and says."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from encoder_core.events import EVENT_TYPES, webhook_payload
from tests.api.conftest import CheckedClient
from tests.api.samples import job, output

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def found(pattern: str) -> list[Any]:
    """Each text that matches, beside its page: parameters of a test."""
    return [
        pytest.param(text, id=f"{page.name} {number}")
        for page in PAGES
        for number, text in enumerate(re.findall(pattern, page.read_text(), re.DOTALL), 1)
    ]


def json_of(page: str) -> Any:
    """The only JSON of a page."""
    (text,) = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    return json.loads(text)


REQUESTS = found(r"curl [^\n]*/jobs [^\n]*-d '(\{.*?\})'\n")
OUTPUTS = found(r'```json\n(\{\n  "container".*?)```')


def test_there_are_examples() -> None:
    assert {request.id for request in REQUESTS} >= {"README.md 1", "api.md 1"}
    assert len(OUTPUTS) >= 2


@pytest.mark.parametrize("body", REQUESTS)
def test_a_request_of_the_pages_is_accepted_as_it_stands(client: CheckedClient, body: str) -> None:
    response = client.post("/jobs", json=json.loads(body))
    assert response.status_code == 202, response.text


@pytest.mark.parametrize("body", OUTPUTS)
def test_an_output_of_the_pages_is_accepted_as_it_stands(client: CheckedClient, body: str) -> None:
    response = client.post("/jobs", json=job(outputs=[json.loads(body)]))
    assert response.status_code == 202, response.text


def test_a_refusal_reads_as_the_page_says(client: CheckedClient) -> None:
    example = json_of("api.md")
    wrong = job(outputs=[output(videoBitrate="a lot")])
    said = client.post("/jobs", json=wrong).json()
    (error,), (error_of_page,) = said["errors"], example["errors"]
    error["detail"] = error_of_page["detail"] = "elided"
    said["instance"] = example["instance"]
    assert said == example


def test_a_webhook_has_the_members_that_the_page_shows() -> None:
    example = json_of("webhooks.md")
    assert example["type"] in EVENT_TYPES
    sent = webhook_payload(
        example["type"], event_id=uuid4(), occurred_at=datetime.now(UTC), sequence=5, job={}
    )
    assert list(example) == list(sent)
