"""Build the work order of an attempt that runs in a Pod. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urljoin
from uuid import UUID

from pydantic import SecretStr

from encoder_core.reports import AmbientCredentials, WorkerLimits, WorkOrder
from encoder_db.attempts import Work
from encoder_operator.pods import SCRATCH_PATH


def build_order(
    work: Work,
    *,
    token: str,
    report_url: str,
    allowed_cidrs: Sequence[str],
    denied_cidrs: Sequence[str],
    ambient: AmbientCredentials,
    limits: WorkerLimits,
) -> WorkOrder:
    return WorkOrder(
        job_id=work.job_id,
        job_uuid=work.job_uuid,
        attempt=work.attempt,
        request_id=work.request_id,
        token=SecretStr(token),
        source=work.spec.source,
        outputs=work.outputs,
        inline_url=inline_url(report_url, work.job_uuid) if work.inline else None,
        scratch_dir=SCRATCH_PATH,
        report_url=report_url,
        allowed_cidrs=list(allowed_cidrs),
        denied_cidrs=list(denied_cidrs),
        ambient=ambient,
        limits=limits,
    )


def inline_url(report_url: str, job: UUID) -> str:
    """Beside the reports, so that an API behind a path is found there too."""
    return urljoin(report_url, f"jobs/{job}/inline")
