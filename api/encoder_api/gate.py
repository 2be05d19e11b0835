"""
The gate in front of every handler: who asks, with which parameters, with what body.

In this order, so that nobody without a key can make the service read a body. What is refused here
never reaches a handler; handlers refuse with the same errors.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from encoder_api.auth import OPEN, require_scope
from encoder_api.bodies import read_json
from encoder_api.contract import DEFAULT_BODY_BYTES, Call, Operation
from encoder_api.fields import field_problems
from encoder_api.problems import Problem, ProblemError, invalid_request
from encoder_api.rates import refuse
from encoder_api.services import Services
from encoder_db.keys import Principal


def routes_of(operations: Iterable[Operation], services: Services) -> list[Route]:
    """One route per path, so that 405 knows every method of it."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    return [
        Route(path, _endpoint(methods, services), methods=list(methods))
        for path, methods in by_path.items()
    ]


def _endpoint(
    methods: dict[str, Operation], services: Services
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        operation = methods["GET" if request.method == "HEAD" else request.method]
        request.state.operation = operation.name
        return await _pass(operation, services, request)

    return endpoint


async def _pass(operation: Operation, services: Services, request: Request) -> Response:
    principal = OPEN
    if operation.scope is not None:
        principal = await _who_asks(services, request)
        _count(services, request, principal)
        require_scope(principal, operation.scope)
    query = None if operation.query is None else parse_query(request, operation.query)
    async with AsyncExitStack() as until_answered:
        body = await _read_model(operation, services, request, until_answered)
        call = Call(services, request, principal, body, query)
        if inspect.iscoroutinefunction(operation.handler):
            response: Response = await operation.handler(call)
            return response
        return await run_in_threadpool(operation.handler, call)  # type: ignore[arg-type]  # plain here


async def _who_asks(services: Services, request: Request) -> Principal:
    known = services.authenticator.recall(request)
    if known is not None:
        return known
    return await run_in_threadpool(services.authenticator.authenticate, request)


def _count(services: Services, request: Request, principal: Principal) -> None:
    allowance = services.limiter.take(principal.key)
    if allowance is None:
        return
    request.state.headers = allowance.headers
    if allowance.wait_s:
        raise refuse(allowance)


async def _read_model(
    operation: Operation, services: Services, request: Request, until_answered: AsyncExitStack
) -> Any:
    if operation.body is None:
        return None
    limit = DEFAULT_BODY_BYTES if operation.body_limit is None else operation.body_limit(services)
    if not operation.body_required and not _announces_body(request):
        return None

    async def admit(size: int) -> None:
        if operation.admits is not None:
            await run_in_threadpool(operation.admits, services, request)
        await until_answered.enter_async_context(services.room.take(size))

    document = await read_json(
        request,
        limit_bytes=limit,
        timeout_s=services.settings.body_timeout_s,
        admit=admit,
    )
    try:
        return operation.body.model_validate(document)
    except ValidationError as error:
        raise invalid_request(field_problems(error, operation.body)) from None


def _announces_body(request: Request) -> bool:
    length = request.headers.get("content-length", "0")
    return length != "0" or "transfer-encoding" in request.headers


def parse_query(request: Request, model: type[BaseModel]) -> Any:
    """The query parameters as a model. An unknown name is refused: ignored, it would mislead."""
    pairs = request.query_params.multi_items()
    if len(dict(pairs)) != len(pairs):
        raise Problem("invalid_parameter", "Give each query parameter once.")
    try:
        return model.model_validate(dict(pairs))
    except ValidationError as error:
        errors = [
            ProblemError(parameter=p.pointer.removeprefix("/"), code=p.code, detail=p.detail)
            for p in field_problems(error, model)
        ]
        detail = f"{errors[0].parameter}: {errors[0].detail}."
        raise Problem("invalid_parameter", detail, errors=errors) from None
