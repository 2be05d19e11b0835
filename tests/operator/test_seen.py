"""What is remembered of an object, and how little."""

from __future__ import annotations

import json
import sys
from dataclasses import astuple
from typing import Any

import pytest

from encoder_operator.seen import parse_job


def a_body(outputs: int, **metadata: Any) -> dict[str, Any]:
    """A TranscodeJob as the API server shows it."""
    condition = {"status": "True", "reason": "Completed", "message": "4 of 4 uploaded" * 4}
    return {
        "metadata": {"name": "mine", "uid": "1", "managedFields": [{"f": "x" * 9000}], **metadata},
        "spec": {
            "source": {"uri": "https://media.example/film.mp4"},
            "outputs": [
                {"format": "mp4", "video": {"codec": "h264", "height": 720}, "uri": f"s3://b/{n}"}
                for n in range(outputs)
            ],
        },
        "status": {
            "conditions": [
                {"type": type_, "lastTransitionTime": "2026-01-02T03:04:05Z", **condition}
                for type_ in ("Succeeded", "Admitted", "PodReady", "Disrupted", "ResultRecorded")
            ],
            "outputs": [
                {
                    "index": n,
                    "status": "uploaded",
                    "sizeBytes": 123_456_789 + n,
                    "url": f"s3://b/{n}",
                }
                for n in range(outputs)
            ],
        },
    }


@pytest.mark.parametrize("outputs", [1, 32])
def test_a_job_takes_the_room_of_its_text(outputs: int) -> None:
    body = a_body(outputs)
    seen = parse_job(body)
    text = len(json.dumps([body["spec"], body["status"]]))
    assert sum(map(sys.getsizeof, (seen, *astuple(seen)))) < text + 1000


def test_what_is_kept_as_text_reads_as_it_was() -> None:
    body = a_body(2)
    seen = parse_job(body)
    assert (seen.spec, seen.status) == (body["spec"], body["status"])
    assert seen.conditions["Admitted"] == body["status"]["conditions"][1]
    assert parse_job(json.loads(json.dumps(body, sort_keys=True))) == seen


@pytest.mark.parametrize(
    ("type_", "status", "done", "over"),
    [
        ("ResultRecorded", "True", True, False),
        ("ResultRecorded", "False", False, False),
        ("Succeeded", "False", False, True),
        ("Succeeded", "Unknown", False, False),
    ],
)
def test_whether_it_is_done_or_over(type_: str, status: str, done: bool, over: bool) -> None:
    condition = {"type": type_, "status": status}
    body = {"metadata": {"name": "mine", "uid": "1"}, "status": {"conditions": [condition]}}
    seen = parse_job(body)
    assert (seen.done, seen.over) == (done, over)
