"""
The contract: what one operation takes, answers and refuses, said once where it is implemented.

Routes, the gate in front of every handler and the OpenAPI document all follow from it, so that
none of them can say something else than another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from encoder_core.model import Model

if TYPE_CHECKING:
    from encoder_api.services import Services
    from encoder_db.keys import Principal

Body = TypeVar("Body")
Query = TypeVar("Query")

Admits = Callable[["Services", Request], None]
"""Asked before more than 64 KiB of a body are kept where no key says who asks. Raises Problem."""

DEFAULT_BODY_BYTES: Final = 256 * 1024  # every body but a job's is small


class Scope(StrEnum):
    """What an API key may do. `admin` includes the others, over all owners."""

    JOBS_READ = "jobs:read"  #: See the jobs of its owner.
    JOBS_WRITE = "jobs:write"  #: Submit, cancel, retry and delete jobs of its owner.
    ADMIN = "admin"  #: Everything, of every owner; pools and workers too.


@dataclass(frozen=True, slots=True)
class Call(Generic[Body, Query]):
    """One request that passed the gate, as its handler sees it."""

    services: Services
    request: Request
    principal: Principal
    body: Body
    query: Query


Handler = Callable[[Call[Any, Any]], Response] | Callable[[Call[Any, Any]], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One way in which an operation answers."""

    says: str
    model: type[BaseModel] | None = None
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    """What its own headers mean."""
    example: Any = None
    also: Sequence[str] = ()
    """Other media types that it can have, as text."""
    names_job: bool = False
    """Its `uuid` is that of a job, which other operations can be asked about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method on one path."""

    method: str
    path: str
    name: str
    summary: str
    description: str
    tag: str
    handler: Handler
    replies: Mapping[int, Reply]
    scope: Scope | None
    """None: open to everybody who can connect."""
    body: type[Model] | None
    body_required: bool
    body_limit: Callable[[Services], int] | None
    admits: Admits | None
    query: type[Model] | None
    headers: Mapping[str, str]
    """Request headers with a meaning of their own."""
    refuses: tuple[str, ...]
    """Codes of problems that are its own; those of the gate come on top."""
    examples: Mapping[str, Any]

    @property
    def problems(self) -> tuple[str, ...]:
        """Every code that can come back."""
        codes = ["internal_error", "unavailable"]
        if self.scope is not None:
            codes += ["unauthorized", "forbidden", "foreign_host", "too_many_requests"]
            if self.method != "GET":
                codes.append("foreign_page")
        if self.body is not None:
            codes += ["malformed_body", "request_timeout", "body_too_large"]
            codes += ["unsupported_media_type", "invalid_request"]
        if self.query is not None:
            codes.append("invalid_parameter")
        if "{" in self.path:
            codes.append("not_found")
        return tuple(dict.fromkeys([*self.refuses, *codes]))


def operation(
    method: str,
    path: str,
    *,
    replies: Mapping[int, Reply],
    scope: Scope | None,
    tag: str,
    body: type[Model] | None = None,
    body_required: bool = True,
    body_limit: Callable[[Services], int] | None = None,
    admits: Admits | None = None,
    query: type[Model] | None = None,
    headers: Mapping[str, str] | None = None,
    refuses: Sequence[str] = (),
    examples: Mapping[str, Any] | None = None,
) -> Callable[[Handler], Operation]:
    """
    Make a handler an operation. Its docstring is what the documentation says of it.

    A plain function runs in a thread, so that it may wait for the database; a coroutine function
    runs in the event loop and must not.
    """

    def make(handler: Handler) -> Operation:
        summary, _, rest = (handler.__doc__ or "").strip().partition("\n")
        return Operation(
            method=method,
            path=path,
            name=handler.__name__,
            summary=summary,
            description="\n".join(line.strip() for line in rest.splitlines()).strip(),
            tag=tag,
            handler=handler,
            replies=replies,
            scope=scope,
            body=body,
            body_required=body_required,
            body_limit=body_limit,
            admits=admits,
            query=query,
            headers=headers or {},
            refuses=tuple(refuses),
            examples=examples or {},
        )

    return make


def answer(
    model: BaseModel, status: int = 200, *, headers: Mapping[str, str] | None = None
) -> Response:
    """A model as the answer. Documents keep their nulls: a field that is not there is a typo."""
    body = model.model_dump_json(by_alias=True)
    return Response(body, status, headers, "application/json")
