"""The work order of a Pod."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from encoder_core.reports import AmbientCredentials, OrderedOutput, WorkerLimits, WorkOrder
from encoder_core.specs import HttpSource, JobSpec
from encoder_db.attempts import Work
from encoder_operator.order import build_order, inline_url
from tests.operator.builders import JOB

SPEC = JobSpec.model_validate(
    {
        "source": {"kind": "https", "url": "https://media.example/in.mp4"},
        "outputs": [
            {"destination": {"kind": "s3", "bucket": "bucket-1", "path": "out.mp4"}},
        ],
    }
)
OUTPUTS = [OrderedOutput(index=3, spec=SPEC.outputs[0])]
AMBIENT = AmbientCredentials(region="eu-west-1")


def order_of(**changes: Any) -> WorkOrder:
    values: dict[str, Any] = {
        "job_id": 7,
        "job_uuid": JOB,
        "owner": "default",
        "attempt": 2,
        "spec": SPEC,
        "outputs": OUTPUTS,
        "inline": frozenset(),
        "source_info": None,
        "request_id": "r-1",
    }
    return build_order(
        Work(**{**values, **changes}),
        token="token-of-the-attempt",
        report_url="http://encoder-api:8080/internal/reports",
        allowed_cidrs=("10.0.0.0/8",),
        denied_cidrs=("10.96.0.0/12",),
        ambient=AMBIENT,
        limits=WorkerLimits(deadline_s=60),
    )


def test_the_order_of_an_attempt() -> None:
    assert order_of() == WorkOrder(
        job_id=7,
        job_uuid=JOB,
        attempt=2,
        request_id="r-1",
        token=SecretStr("token-of-the-attempt"),
        source=HttpSource.model_validate({"kind": "https", "url": "https://media.example/in.mp4"}),
        outputs=OUTPUTS,
        scratch_dir="/scratch",
        report_url="http://encoder-api:8080/internal/reports",
        allowed_cidrs=["10.0.0.0/8"],
        denied_cidrs=["10.96.0.0/12"],
        ambient=AMBIENT,
        limits=WorkerLimits(deadline_s=60),
    )


def test_an_inline_source_is_fetched_from_the_api() -> None:
    expected = f"http://encoder-api:8080/internal/jobs/{JOB}/inline"
    assert order_of(inline=frozenset({0})).inline_url == expected


@pytest.mark.parametrize(
    ("report_url", "want"),
    [
        pytest.param(
            "http://api:8080/internal/reports",
            f"http://api:8080/internal/jobs/{JOB}/inline",
            id="same origin",
        ),
        pytest.param(
            "https://encoder.example/v1/internal/reports",
            f"https://encoder.example/v1/internal/jobs/{JOB}/inline",
            id="behind a path",
        ),
    ],
)
def test_inline_bytes_are_beside_the_reports(report_url: str, want: str) -> None:
    assert inline_url(report_url, JOB) == want
