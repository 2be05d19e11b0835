"""What workers in Pods say and fetch. The attempt's token is who they are, not an API key."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from encoder_api.auth import bearer_token, unauthorized
from encoder_api.contract import Call, Reply, answer, operation
from encoder_api.endpoints.jobs import no_such_job
from encoder_api.services import Services
from encoder_core.reports import Answer, Envelope
from encoder_db.blobs import list_blobs, read_chunk
from encoder_db.reports import apply_report
from encoder_db.store import Store
from encoder_db.tokens import job_of_token

TAG: Final = "internal"
# A final report brings 32 outputs, each with its files; an HLS set of two hours has thousands.
REPORT_BYTES: Final = 16 * 1024 * 1024
_BYTES: Final = "application/octet-stream"


def _check_token(services: Services, request: Request) -> None:
    """Only who holds an attempt may make the service read 16 MiB."""
    token, uuid = _token(request), _uuid(request.headers.get("encoder-job", ""))
    with services.store.read() as tx:
        if job_of_token(tx, uuid, token) is None:
            raise no_such_job()


@operation(
    "POST",
    "/internal/reports",
    tag=TAG,
    scope=None,
    body=Envelope,
    body_limit=lambda _: REPORT_BYTES,
    admits=_check_token,
    headers={
        "Authorization": "`Bearer` and the attempt's token, needed with more than 64 KiB.",
        "Encoder-Job": "The uuid of the attempt's job, needed with more than 64 KiB.",
    },
    refuses=("unauthorized", "not_found"),
    replies={200: Reply(says="What the worker has to do now.", model=Answer)},
)
def take_report(call: Call[Envelope, None]) -> Response:
    """Take in a worker's report; `accepted` is false when it does not hold the attempt."""
    return answer(apply_report(call.services.store, call.body))


@operation(
    "GET",
    "/internal/jobs/{uuid}/inline/{number}",
    tag=TAG,
    scope=None,
    headers={"Authorization": "`Bearer` and the attempt's token."},
    refuses=("unauthorized",),
    replies={200: Reply(says="The source's bytes.", media_type=_BYTES)},
)
def read_inline_source(call: Call[None, None]) -> Response:
    """
    Fetch the bytes of an inline source.

    Number 0 is the job's source, number N + 1 the image of the watermark of output N.
    """
    store = call.services.store
    token, uuid = _token(call.request), _uuid(call.request.path_params["uuid"])
    with store.read() as tx:
        job_id = job_of_token(tx, uuid, token)
        number = call.request.path_params["number"]
        if job_id is None or number not in map(str, list_blobs(tx, job_id)):
            raise no_such_job()
    return StreamingResponse(_blob(store, job_id, int(number)), media_type=_BYTES)


def _blob(store: Store, job_id: int, number: int) -> Iterator[bytes]:
    for chunk in count():
        # Each with a connection of its own: whoever does not read would keep one for ever.
        with store.read() as tx:
            data = read_chunk(tx, job_id, number, chunk)
        if data is None:
            return
        yield data


def _token(request: Request) -> str:
    token = bearer_token(request.headers.get("authorization"))
    if token is None:
        raise unauthorized("Send the attempt's token as `Authorization: Bearer …`.")
    return token


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise no_such_job() from None
