"""
What is said when a request cannot be granted: problem details (RFC 9457), one catalogue of types.

Every answer outside 2xx and 3xx has this shape, whoever refuses: router, gate, handler, database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from encoder_core.documents import Document
from encoder_core.errors import FieldProblem

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:encoder:problem:"


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One kind of refusal. Codes are public and never renamed."""

    code: str
    status: int
    title: str

    @property
    def uri(self) -> str:
        return TYPE_PREFIX + self.code


_CATALOGUE: Final = (
    # What is wrong with the request
    ProblemType("malformed_body", 400, "The body is not the JSON that was announced"),
    ProblemType("invalid_parameter", 400, "A query parameter or header is not valid"),
    ProblemType("invalid_cursor", 400, "The cursor was not made by this list"),
    ProblemType("unauthorized", 401, "An API key is needed"),
    ProblemType("forbidden", 403, "This API key does not allow it"),
    ProblemType("foreign_page", 403, "The request came from another web page"),
    ProblemType("foreign_host", 403, "The service is open to this machine only"),
    ProblemType("not_found", 404, "There is no such thing"),
    ProblemType("method_not_allowed", 405, "The method is not offered here"),
    ProblemType("request_timeout", 408, "The body did not arrive in time"),
    ProblemType("body_too_large", 413, "The body is too large"),
    ProblemType("unsupported_media_type", 415, "The body must be application/json"),
    ProblemType("head_too_large", 431, "The headers are too large"),
    ProblemType("invalid_request", 422, "One or more fields are not valid"),
    ProblemType("idempotency_key_reused", 422, "The Idempotency-Key was used for another request"),
    # What stands in its way
    ProblemType("idempotency_in_progress", 409, "The same request is being worked on"),
    ProblemType("external_id_taken", 409, "Another job has this externalId"),
    ProblemType("job_not_final", 409, "The job has not ended yet"),
    ProblemType("job_final", 409, "The job has ended"),
    ProblemType("job_not_queued", 409, "The job does not wait"),
    ProblemType("job_completed", 409, "Nothing of the job is left to do"),
    ProblemType("applied_resource", 409, "The job was applied with kubectl"),
    ProblemType("credentials_required", 409, "The job's credentials are gone"),
    ProblemType("no_receiver", 409, "Nobody is to be told of this job"),
    ProblemType("pool_exists", 409, "There is a pool of this name"),
    ProblemType("pool_ruled_by_cluster", 409, "The pool is ruled by its TranscodePool"),
    ProblemType("pool_draining", 409, "The pool takes no new jobs"),
    ProblemType("too_many_queued", 429, "Too many jobs of this owner wait"),
    ProblemType("too_many_requests", 429, "Too many requests"),
    # What is wrong with the service
    ProblemType("internal_error", 500, "The service made a mistake"),
    ProblemType("unavailable", 503, "The service cannot answer now"),
)
PROBLEMS: Final[Mapping[str, ProblemType]] = {kind.code: kind for kind in _CATALOGUE}


class ProblemError(Document):
    """One wrong thing in a request. Says where and what to do, and never repeats the value."""

    pointer: str | None = None
    """JSON pointer into the body."""
    parameter: str | None = None
    """The query parameter or header, when it is not in the body."""
    code: str
    detail: str


class ProblemDocument(Document):
    """Problem details after RFC 9457."""

    type: str
    """`urn:encoder:problem:` and a code that never changes."""
    title: str
    status: int
    detail: str
    instance: str
    """The request's id, which the service's log has too."""
    errors: list[ProblemError] = []


class Problem(Exception):
    """Raised to refuse a request with a type of the catalogue."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Sequence[ProblemError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = PROBLEMS[code]
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})


def invalid_request(problems: Sequence[FieldProblem]) -> Problem:
    """The refusal of a body whose fields are wrong."""
    errors = [ProblemError(pointer=p.pointer, code=p.code, detail=p.detail) for p in problems]
    return Problem("invalid_request", summarise(problems), errors=errors)


def summarise(problems: Sequence[FieldProblem]) -> str:
    """The first problem as a sentence, for clients that show only `detail`."""
    first = problems[0]
    where = first.pointer or "The body"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    sentence = f"{where}: {first.detail}{more}"
    return sentence if sentence.endswith("?") else f"{sentence}."


def invalid_parameter(name: str, detail: str) -> Problem:
    error = ProblemError(parameter=name, code="invalid", detail=detail)
    return Problem("invalid_parameter", f"{name} {detail}.", errors=[error])


def respond(problem: Problem, *, request_id: str) -> Response:
    """The answer to a refused request."""
    kind = problem.kind
    document = ProblemDocument(
        type=kind.uri,
        title=kind.title,
        status=kind.status,
        detail=problem.detail,
        instance=f"urn:encoder:request:{request_id}",
        errors=problem.errors,
    )
    body = document.model_dump_json(by_alias=True, exclude_none=True)
    return Response(body, kind.status, problem.headers, MEDIA_TYPE)
