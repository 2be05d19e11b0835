"""Workers: which processes run jobs now."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from starlette.responses import Response

from encoder_api.auth import visible_owner
from encoder_api.contract import Call, Reply, Scope, operation
from encoder_core.documents import Document
from encoder_db import workers

TAG: Final = "workers"


class WorkerDocument(Document):
    """A process that runs jobs and was heard of lately."""

    name: str
    kind: str
    """`app`, `worker` or `operator`."""
    host: str
    pid: int
    capacity: int
    """How many jobs it runs at once."""
    busy: int
    """How many it runs now."""
    running: list[int]
    """Their numbers; shown to admins only, as they may be of any owner."""
    started_at: datetime
    heartbeat_at: datetime


class WorkerList(Document):
    workers: list[WorkerDocument]


@operation(
    "GET",
    "/workers",
    tag=TAG,
    scope=Scope.JOBS_READ,
    replies={200: Reply(says="The workers that are alive.", model=WorkerList)},
)
def list_workers(call: Call[None, None]) -> Response:
    """List the workers that are alive."""
    shows_jobs = visible_owner(call.principal) is None
    with call.services.store.read() as tx:
        alive = workers.list_workers(tx)
    raise NotImplementedError
