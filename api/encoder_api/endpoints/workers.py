"""Workers: which processes run jobs now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from encoder_api.auth import visible_owner
from encoder_api.conditional import answer_unless_known
from encoder_api.contract import Call, Reply, Scope, operation
from encoder_core.documents import Document
from encoder_core.model import Instant
from encoder_db import workers

TAG: Final = "workers"


class WorkerDocument(Document):
    """A process that runs jobs and was heard of lately."""

    name: str
    kind: str
    """What it is, such as the unified app or a worker process."""
    host: str
    pid: int
    capacity: int
    """How many jobs it runs at once."""
    busy: int
    """How many it runs now."""
    running: list[int]
    """Their numbers; shown to admins only, as they may be of any owner."""
    started_at: Instant
    heartbeat_at: Instant


class WorkerList(Document):
    workers: list[WorkerDocument]


@operation(
    "GET",
    "/workers",
    tag=TAG,
    scope=Scope.JOBS_READ,
    headers={"If-None-Match": "The ETag of an earlier answer."},
    replies={
        200: Reply(says="The workers.", model=WorkerList, headers={"ETag": "Of this answer."}),
        304: Reply(says="Nothing has changed."),
    },
)
def list_workers(call: Call[None, None]) -> Response:
    """List the workers that are alive."""
    shows_jobs = visible_owner(call.principal) is None
    with call.services.store.read() as tx:
        alive = [_document(row, shows_jobs=shows_jobs) for row in workers.list_workers(tx)]
    return answer_unless_known(call.request, WorkerList(workers=alive))


def _document(row: Mapping[str, Any], *, shows_jobs: bool) -> WorkerDocument:
    running = row["running"]
    shown = {**row, "busy": len(running), "running": running if shows_jobs else []}
    return WorkerDocument(**shown)
