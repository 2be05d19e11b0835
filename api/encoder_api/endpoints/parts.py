"""What a job consists of, as lists of their own: its outputs and its attempts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from pydantic import Field
from starlette.responses import Response

from encoder_api.conditional import answer_unless_known
from encoder_api.contract import Call, Reply, Scope, operation
from encoder_api.endpoints.jobs import PAGE, TAG, known_row
from encoder_api.pages import NEXT, link_next
from encoder_core.documents import AttemptDocument, Document, OutputDocument
from encoder_core.failures import Budget, failure
from encoder_core.model import Model
from encoder_core.reports import OutputFile, OutputResult
from encoder_core.states import AttemptStatus, OutputStatus
from encoder_db.documents import list_attempts, list_outputs

MAX_NUMBER: Final = 65_535  # of an attempt


class OutputList(Document):
    """The outputs of a job, in the order of its request."""

    outputs: list[OutputDocument]


class AttemptList(Document):
    """A page of a job's attempts, the first one first."""

    attempts: list[AttemptDocument]
    next_after: int | None = None
    """For `after`, to go on; null when there are no more yet."""


class AttemptQuery(Model):
    after: Annotated[int, Field(ge=0, le=MAX_NUMBER)] = 0
    """Only attempts with a larger number."""
    limit: Annotated[int, Field(ge=1, le=PAGE)] = PAGE
    """How many attempts at most."""


OUTPUTS: Final = OutputList(
    outputs=[
        OutputDocument(
            id=12,
            index=0,
            status=OutputStatus.UPLOADED,
            spec={
                "container": "mp4",
                "videoCodec": "libx264",
                "height": 720,
                "destination": {"kind": "s3", "bucket": "my-bucket", "path": "out/720p.mp4"},
            },
            result=OutputResult(
                files=[
                    OutputFile(
                        url="s3://my-bucket/out/720p.mp4",
                        size_bytes=29_118_464,
                        sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                        content_type="video/mp4",
                    )
                ],
                size_bytes=29_118_464,
                duration_s=93.4,
                container="mp4",
                video_codec="h264",
                width=1280,
                height=720,
            ),
        )
    ]
)
_NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
ATTEMPTS: Final = AttemptList(
    attempts=[
        AttemptDocument(
            number=1,
            status=AttemptStatus.LOST,
            executor="kubernetes",
            worker="tj-0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b-a1",
            node="spot-7",
            failure=failure("node_lost"),
            budget=Budget.INFRA,
            created_at=_NOON,
            started_at=_NOON + timedelta(seconds=4),
            finished_at=_NOON + timedelta(minutes=6),
        ),
        AttemptDocument(
            number=2,
            status=AttemptStatus.RUNNING,
            executor="kubernetes",
            worker="tj-0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b-a2",
            node="spot-3",
            created_at=_NOON + timedelta(minutes=8),
            started_at=_NOON + timedelta(minutes=8, seconds=5),
        ),
    ]
)


@operation(
    "GET",
    "/jobs/{id}/outputs",
    tag=TAG,
    scope=Scope.JOBS_READ,
    headers={"If-None-Match": "The ETag of an earlier answer."},
    replies={
        200: Reply(
            says="All of its outputs.",
            model=OutputList,
            example=OUTPUTS.to_json(),
            headers={"ETag": "Of this answer."},
        ),
        304: Reply(says="Nothing has changed."),
    },
)
def list_job_outputs(call: Call[None, None]) -> Response:
    """List the outputs of a job: what was asked for, and what became of each."""
    with call.services.store.read() as tx:
        outputs = list_outputs(tx, known_row(tx, call).id)
    return answer_unless_known(call.request, OutputList(outputs=outputs))


@operation(
    "GET",
    "/jobs/{id}/attempts",
    tag=TAG,
    scope=Scope.JOBS_READ,
    query=AttemptQuery,
    headers={"If-None-Match": "The ETag of an earlier answer."},
    replies={
        200: Reply(
            says="A page of attempts.",
            model=AttemptList,
            example=ATTEMPTS.to_json(),
            headers={"ETag": "Of this answer.", **NEXT},
        ),
        304: Reply(says="Nothing has changed."),
    },
)
def list_job_attempts(call: Call[None, AttemptQuery]) -> Response:
    """
    List the attempts at a job, the first one first.

    Retries go on counting, also those that somebody asked for.
    """
    query = call.query
    with call.services.store.read() as tx:
        job_id = known_row(tx, call).id
        found = list_attempts(tx, job_id, after=query.after, limit=query.limit + 1)
    page, more = found[: query.limit], len(found) > query.limit
    after = page[-1].number if more else None
    return answer_unless_known(
        call.request,
        AttemptList(attempts=page, next_after=after),
        headers=link_next(call.request, "after", after),
    )
