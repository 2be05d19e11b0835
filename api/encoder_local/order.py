"""Build the work order of an attempt that runs on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from encoder_core.reports import AmbientCredentials, WorkerLimits, WorkOrder
from encoder_db.attempts import Work
from encoder_db.blobs import SOURCE_BLOB, image_blob


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderContext:
    """What is the same for all orders of this installation."""

    files_root: Path | None = None
    allowed_cidrs: tuple[str, ...] = ()
    denied_cidrs: tuple[str, ...] = ()
    ambient: AmbientCredentials = field(default_factory=AmbientCredentials)
    limits: WorkerLimits = field(default_factory=WorkerLimits)


def build_order(
    context: OrderContext,
    work: Work,
    *,
    token: str,
    scratch: Path,
    inline: Mapping[int, Path],
    encoded: Mapping[int, Path],
) -> WorkOrder:
    """
    `inline`: files with what came in the request, by the numbers of `encoder_db.blobs`. `encoded`:
    outputs whose encoded file an earlier attempt left, by index: deliver those.
    """
    return WorkOrder(
        job_id=work.job_id,
        job_uuid=work.job_uuid,
        attempt=work.attempt,
        request_id=work.request_id,
        token=SecretStr(token),
        source=work.spec.source,
        outputs=[
            output.model_copy(
                update={
                    "encoded_path": _path(encoded, output.index),
                    "image_path": _path(inline, image_blob(output.index)),
                }
            )
            for output in work.outputs
        ],
        inline_path=_path(inline, SOURCE_BLOB),
        scratch_dir=str(scratch),
        files_root=str(context.files_root) if context.files_root else None,
        allowed_cidrs=list(context.allowed_cidrs),
        denied_cidrs=list(context.denied_cidrs),
        ambient=context.ambient,
        limits=context.limits,
    )


def _path(paths: Mapping[int, Path], number: int) -> str | None:
    return str(paths[number]) if number in paths else None
