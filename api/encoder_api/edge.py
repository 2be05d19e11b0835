"""
The outermost layer: request ids, security headers, the access log, and what nobody expected.

Every answer passes here. An exception that is no refusal is logged once, with its traceback, and
answered with a 500 that says nothing of it.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from encoder_api.metrics import Metrics
from encoder_api.problems import PROBLEMS, Problem, invalid_request, respond
from encoder_core.errors import InvalidRequest, Refused
from encoder_core.logs import log_fields

access_log = logging.getLogger("encoder.access")
log = logging.getLogger("encoder.api")

SECURITY_HEADERS: Final[Mapping[str, str]] = {
    # The dashboard shows file names and ffmpeg's words, which are hostile: nothing inline runs.
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_RETRY_S: Final = 2  # a database that restarts or a lock that is held


class Edge:
    def __init__(self, app: ASGIApp, *, metrics: Metrics, draining: threading.Event) -> None:
        self._app = app
        self._metrics = metrics
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s = time.perf_counter()
        request = Request(scope)
        request.state.request_id = _request_id(request.headers.get("x-request-id"))
        _drop_trailing_slash(scope)
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(message, request)
                if self._draining.is_set():  # its next request would cross with the end
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        with log_fields(request=request.state.request_id):
            try:
                await self._app(scope, receive, send_with_headers)
            except ClientDisconnect:
                log.info("client_gone")
            except Exception as error:  # whatever it is, the client gets an answer and the log why
                if status:
                    # The answer has begun: cutting it off is the only way to say that it is broken.
                    log.exception("answer_broken_off")
                    raise
                await _answer_for(error, request)(scope, receive, send_with_headers)
            finally:
                self._account(request, status, time.perf_counter() - began_s)

    def _account(self, request: Request, status: int, seconds: float) -> None:
        operation = getattr(request.state, "operation", "none")
        self._metrics.count(operation, status=status, seconds=seconds)
        # The path without the query string: cursors and filters are nobody's business.
        access_log.info(
            "request",
            extra={
                "method": request.method,
                "path": request.scope["path"][:256],
                "status": status,
                "ms": round(seconds * 1000, 1),
            },
        )


def _request_id(given: str | None) -> str:
    return given if given and _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())


def _drop_trailing_slash(scope: Scope) -> None:
    """`/jobs/` is `/jobs`: the original service took both, and some clients send it."""
    path = scope["path"]
    if len(path) > 1 and path.endswith("/") and not path.startswith("/static/"):
        scope["path"] = path.rstrip("/") or "/"


def _add_headers(message: Message, request: Request) -> None:
    headers = MutableHeaders(scope=message)
    headers["X-Request-ID"] = request.state.request_id
    for name, value in getattr(request.state, "headers", {}).items():
        headers[name] = value
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)
    headers.setdefault("Cache-Control", "no-store")


def _answer_for(error: Exception, request: Request) -> Response:
    problem = problem_of(error)
    if problem is None:
        log.error("request_failed", exc_info=error)
        problem = Problem(
            "internal_error",
            "The request could not be served; the log has the reason under the request's id.",
        )
    return respond(problem, request_id=request.state.request_id)


def problem_of(error: Exception) -> Problem | None:
    """What to say of an exception; None when it is a mistake of ours."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, InvalidRequest):
        return invalid_request(error.problems)
    if isinstance(error, Refused):
        return _of_refused(error)
    if isinstance(error, (OperationalError, PoolTimeout)) or _is_cut(error):
        # Logged without SQL or parameters: only which kind of error the driver saw.
        cause = getattr(error, "orig", None) or error
        log.error("database_unavailable", extra={"error": type(cause).__name__})
        return Problem(
            "unavailable",
            "The database does not answer; try again.",
            headers={"Retry-After": str(_RETRY_S)},
        )
    return None


def _is_cut(error: Exception) -> bool:
    """A connection that turned out to be closed: the driver has other words for that."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


def _of_refused(error: Refused) -> Problem:
    if error.status == 404:
        return Problem("not_found", _sentence(str(error)))
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    return Problem(error.code, _sentence(str(error)), headers=headers)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """What the framework refuses by itself: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    return respond(of_framework(error), request_id=request.state.request_id)


def of_framework(error: HTTPException) -> Problem:
    headers: dict[str, Any] = dict(error.headers or {})
    if error.status_code == 405:
        allowed = headers.get("Allow", "")
        return Problem("method_not_allowed", f"Use {allowed} here.", headers=headers)
    by_status = {kind.status: kind.code for kind in reversed(list(PROBLEMS.values()))}
    code = by_status.get(error.status_code, "internal_error")
    detail = "There is nothing at this path." if code == "not_found" else error.detail
    return Problem(code, detail, headers=headers)
