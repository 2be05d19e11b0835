"""Build the work order of an attempt that runs on this machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from pydantic import SecretStr

from encoder_core.reports import AmbientCredentials, OrderedOutput, WorkerLimits, WorkOrder
from encoder_core.specs import JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderContext:
    """What is the same for all orders of this installation."""

    files_root: Path | None = None
    allowed_cidrs: tuple[str, ...] = ()
    ambient: AmbientCredentials = field(default_factory=AmbientCredentials)
    limits: WorkerLimits = field(default_factory=WorkerLimits)


def build_order(
    context: OrderContext,
    *,
    job_id: int,
    job_uuid: UUID,
    attempt: int,
    token: str,
    spec: JobSpec,
    outputs: list[int],
    scratch: Path,
    inline_path: Path | None,
    encoded: dict[int, Path],
) -> WorkOrder:
    """
    `outputs` are the indexes still to make; `encoded` those of them whose encoded file an earlier
    attempt left behind, so that only their delivery is missing.
    """
    return WorkOrder(
        job_id=job_id,
        job_uuid=job_uuid,
        attempt=attempt,
        token=SecretStr(token),
        source=spec.source,
        outputs=[
            OrderedOutput(
                index=index,
                spec=spec.outputs[index],
                encoded_path=str(encoded[index]) if index in encoded else None,
            )
            for index in outputs
        ],
        inline_path=str(inline_path) if inline_path else None,
        scratch_dir=str(scratch),
        files_root=str(context.files_root) if context.files_root else None,
        allowed_cidrs=list(context.allowed_cidrs),
        ambient=context.ambient,
        limits=context.limits,
    )
