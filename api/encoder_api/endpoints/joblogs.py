"""What the workers of a job logged."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field
from starlette.responses import Response

from encoder_api.conditional import answer_unless_known
from encoder_api.contract import Call, Reply, Scope, operation
from encoder_api.endpoints.jobs import TAG, known_row
from encoder_api.problems import Problem
from encoder_core.documents import LogDocument
from encoder_core.model import Model
from encoder_db.joblogs import read_log

LINES: Final = 200
MAX_LINES: Final = 1_000


class LogQuery(Model):
    attempt: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """The number of the attempt. Default: the latest that has a log."""
    lines: Annotated[int, Field(ge=1, le=MAX_LINES)] = LINES
    """How many of the last lines at most."""


@operation(
    "GET",
    "/jobs/{id}/logs",
    tag=TAG,
    scope=Scope.JOBS_READ,
    query=LogQuery,
    headers={"If-None-Match": "The ETag of an earlier answer."},
    replies={
        200: Reply(says="The last lines.", model=LogDocument, headers={"ETag": "Of this answer."}),
        304: Reply(says="Nothing has changed."),
    },
)
def read_job_log(call: Call[None, LogQuery]) -> Response:
    """
    Read the end of the log of an attempt: what its worker did, and ffmpeg's last words.

    A worker sends it every 10 seconds and at its end; 32 KiB of each attempt are kept, as long as
    the job.
    """
    query = call.query
    with call.services.store.read() as tx:
        job = known_row(tx, call)
        log = read_log(tx, job.id, attempt=query.attempt, limit=query.lines)
    if log is None:
        raise Problem("not_found", "Nothing has been logged yet.")
    return answer_unless_known(call.request, log)
