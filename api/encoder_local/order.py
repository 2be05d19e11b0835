"""Build the work order of an attempt that runs on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from encoder_core.reports import AmbientCredentials, WorkerLimits, WorkOrder
from encoder_db.attempts import Work


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderContext:
    """What is the same for all orders of this installation."""

    files_root: Path | None = None
    allowed_cidrs: tuple[str, ...] = ()
    ambient: AmbientCredentials = field(default_factory=AmbientCredentials)
    limits: WorkerLimits = field(default_factory=WorkerLimits)


def build_order(
    context: OrderContext,
    work: Work,
    *,
    token: str,
    scratch: Path,
    inline_path: Path | None,
    encoded: Mapping[int, Path],
) -> WorkOrder:
    """`encoded`: outputs whose encoded file an earlier attempt left, by index: deliver those."""
    return WorkOrder(
        job_id=work.job_id,
        job_uuid=work.job_uuid,
        attempt=work.attempt,
        request_id=work.request_id,
        token=SecretStr(token),
        source=work.spec.source,
        outputs=[
            output.model_copy(update={"encoded_path": str(encoded[output.index])})
            if output.index in encoded
            else output
            for output in work.outputs
        ],
        inline_path=str(inline_path) if inline_path else None,
        scratch_dir=str(scratch),
        files_root=str(context.files_root) if context.files_root else None,
        allowed_cidrs=list(context.allowed_cidrs),
        ambient=context.ambient,
        limits=context.limits,
    )
