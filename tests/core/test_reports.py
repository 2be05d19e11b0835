"""The protocol between a worker and the record survives the wire, whole."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from encoder_core.failures import Warned, failure
from encoder_core.reports import (
    AmbientCredentials,
    Answer,
    Envelope,
    FinalReport,
    LogReport,
    Milestone,
    OrderedOutput,
    Outcome,
    OutputFile,
    OutputReport,
    OutputResult,
    Phase,
    ProgressReport,
    Report,
    SourceInfo,
    SourceReport,
    Started,
    WorkOrder,
)
from encoder_core.specs import FileDestination, FileSource, OutputSpec
from encoder_core.states import OutputStatus

JOB = UUID("0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b")
RESULT = OutputResult(
    files=[OutputFile(url="s3://b/k", size_bytes=9, sha256="00", content_type="video/mp4")],
    size_bytes=9,
    duration_s=2.0,
    width=1280,
    height=720,
)
UPLOADED = OutputReport(index=0, status=OutputStatus.UPLOADED, result=RESULT)
REPORTS = [
    pytest.param(Started(sandbox=["landlock", "seccomp"]), id="started"),
    pytest.param(ProgressReport(phase=Phase.ENCODING, percent=42.5, speed=1.5), id="progress"),
    pytest.param(
        SourceReport(
            source=SourceInfo(size_bytes=9, duration_s=2.0, streams=[{"index": 0}]),
            warnings=[Warned(code="audio_missing", message="No audio.", output=0)],
        ),
        id="source",
    ),
    pytest.param(LogReport(tail="one\ntwo", lines=7), id="log"),
    pytest.param(UPLOADED, id="an output uploaded"),
    pytest.param(
        OutputReport(
            index=1, status=OutputStatus.FAILED, failure=failure("destination_denied", output=1)
        ),
        id="an output failed",
    ),
    pytest.param(
        FinalReport(
            outcome=Outcome.FAILED,
            failure=failure("destination_denied", output=1),
            retry_after_s=3.0,
            outputs=[UPLOADED],
            reached={Milestone.FETCHED: 1.5},
        ),
        id="final",
    ),
]


def over_the_wire(envelope: Envelope) -> Envelope:
    return Envelope.model_validate_json(json.dumps(envelope.to_json_with_secrets()))


@pytest.mark.parametrize("report", REPORTS)
def test_every_report_arrives_as_it_was_sent(report: Report) -> None:
    sent = Envelope.model_validate(
        {"jobUuid": JOB, "attempt": 2, "token": "t0ken", "report": report}
    )
    assert over_the_wire(sent) == sent


@pytest.mark.parametrize("report", REPORTS)
def test_every_report_says_its_type(report: Report) -> None:
    """Defaults are written too: without its type a report could not be told from another."""
    assert report.to_json()["type"] == report.type


def test_the_token_is_sent_and_never_shown() -> None:
    envelope = Envelope.model_validate(
        {"jobUuid": JOB, "attempt": 1, "token": "t0ken", "report": Started()}
    )
    assert envelope.to_json_with_secrets()["token"] == "t0ken"
    assert "t0ken" not in json.dumps(envelope.to_json())
    assert "t0ken" not in repr(envelope)


@pytest.mark.parametrize(
    "report",
    [
        pytest.param({"type": "progress", "phase": "encoding", "percent": 101}, id="over 100 %"),
        pytest.param({"type": "progress", "phase": "dreaming", "percent": 1}, id="unknown phase"),
        pytest.param({"type": "gossip"}, id="an unknown type"),
        pytest.param({"sandbox": []}, id="no type"),
        pytest.param(
            {"type": "progress", "phase": "encoding", "percent": 1, "speed": float("inf")},
            id="a speed that no database can store",
        ),
    ],
)
def test_what_is_no_report_is_refused(report: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Envelope.model_validate({"jobUuid": JOB, "attempt": 1, "token": "t", "report": report})


@pytest.mark.parametrize(
    "report",
    [
        pytest.param({"type": "progress", "phase": "encoding", "percent": True}, id="percent"),
        pytest.param(
            {"type": "progress", "phase": "encoding", "percent": 1, "speed": True}, id="speed"
        ),
        pytest.param({"type": "log", "tail": "", "lines": True}, id="lines of a log"),
        pytest.param({"type": "source", "source": {"durationS": True}}, id="the source's length"),
        pytest.param(
            {"type": "output", "index": True, "status": "running"}, id="an output's index"
        ),
        pytest.param(
            {
                "type": "output",
                "index": 0,
                "status": "uploaded",
                "result": {"files": [], "sizeBytes": True},
            },
            id="an output's size",
        ),
        pytest.param(
            {
                "type": "output",
                "index": 0,
                "status": "running",
                "warnings": [{"code": "c", "message": "m", "output": True}],
            },
            id="the output of a warning",
        ),
        pytest.param(
            {"type": "final", "outcome": "succeeded", "reached": {"fetched": True}},
            id="when a step was over",
        ),
        pytest.param(
            {"type": "final", "outcome": "failed", "retryAfterS": False}, id="when to try again"
        ),
    ],
)
def test_true_is_no_number(report: dict[str, Any]) -> None:
    envelope = {"jobUuid": str(JOB), "attempt": 1, "token": "t", "report": report}
    with pytest.raises(ValidationError, match="and not true or false"):
        Envelope.model_validate(envelope)
    with pytest.raises(ValidationError, match="and not true or false"):
        Envelope.model_validate_json(json.dumps(envelope))  # as a local child's line is read


def test_true_is_no_attempt() -> None:
    envelope = {"jobUuid": str(JOB), "attempt": True, "token": "t", "report": {"type": "started"}}
    with pytest.raises(ValidationError, match="and not true or false"):
        Envelope.model_validate(envelope)


def test_an_answer_that_says_no_grants_nothing() -> None:
    assert Answer(accepted=False).to_json() == {
        "accepted": False,
        "cancel": False,
        "publishLeaseS": 0.0,
    }


def test_a_work_order_arrives_as_it_was_sent_credentials_included() -> None:
    order = WorkOrder.model_validate(
        {
            "jobId": 1,
            "jobUuid": JOB,
            "attempt": 1,
            "token": "t0ken",
            "source": FileSource(kind="file", path="in.mp4"),
            "outputs": [
                OrderedOutput(
                    index=3,
                    spec=OutputSpec(destination=FileDestination(kind="file", path="out.mp4")),
                )
            ],
            "scratchDir": "scratch",
            "ambient": {"accessKeyId": "AKIA", "accessKeySecret": "s3cret"},
        }
    )
    wire = json.dumps(order.to_json_with_secrets())
    assert WorkOrder.model_validate_json(wire) == order
    assert "s3cret" not in json.dumps(order.to_json())
    assert order.ambient != AmbientCredentials()
