"""Put the API together: the edge, the gate, the operations, the page and its files."""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from encoder_api.docs import STYLE, render_page
from encoder_api.edge import Edge, answer_http_exception
from encoder_api.endpoints import OPERATIONS
from encoder_api.gate import routes_of
from encoder_api.openapi import build_document
from encoder_api.services import Services, make_services
from encoder_api.settings import ApiSettings
from encoder_core.clock import Clock, SystemClock
from encoder_db.store import Store

STATIC: Final = Path(__file__).with_name("static")
_REVALIDATE: Final = {"Cache-Control": "no-cache"}  # after an upgrade nobody sees the old page


def create_app(settings: ApiSettings, store: Store, *, clock: Clock | None = None) -> Starlette:
    """The ASGI application. The store stays the caller's, who migrates it before and closes it."""
    services = make_services(settings, store, clock or SystemClock())
    app = Starlette(
        routes=[*routes_of(OPERATIONS, services), *_documentation(), *_dashboard(settings)],
        middleware=[Middleware(Edge, metrics=services.metrics, draining=services.draining)],
        exception_handlers={HTTPException: answer_http_exception},
    )
    app.router.redirect_slashes = False  # a redirected POST is a lost job with many clients
    app.state.services = services
    return app


def services_of(app: Starlette) -> Services:
    services: Services = app.state.services
    return services


@cache
def openapi_document() -> dict[str, Any]:
    """Built when it is first asked for: that takes longer than the rest of a start."""
    return build_document(OPERATIONS, version=version("encoder"))


@cache
def _openapi_json() -> bytes:
    return json.dumps(openapi_document(), ensure_ascii=False).encode()


@cache
def _docs_page() -> str:
    return render_page(openapi_document())


def _documentation() -> list[BaseRoute]:
    def openapi(request: Request) -> Response:
        return Response(_openapi_json(), headers=_REVALIDATE, media_type="application/json")

    def docs(request: Request) -> Response:
        return HTMLResponse(_docs_page(), headers=_REVALIDATE)

    def style(request: Request) -> Response:
        return Response(STYLE, headers=_REVALIDATE, media_type="text/css")

    return [
        Route("/openapi.json", openapi),
        Route("/docs", docs),
        Route("/docs/style.css", style),
    ]


def _dashboard(settings: ApiSettings) -> list[BaseRoute]:
    if not settings.dashboard:
        return []

    async def page(request: Request) -> Response:
        index = STATIC / "index.html"
        if not index.is_file():
            raise HTTPException(404)
        return FileResponse(index, headers=_REVALIDATE)

    files = _Static(directory=STATIC, check_dir=False)
    return [Route("/", page), Mount("/static", files, name="static")]


class _Static(StaticFiles):
    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]  # passed on
        response.headers.update(_REVALIDATE)
        return response

    async def get_response(self, path: str, scope: Scope) -> Response:
        if path in ("", "."):
            raise HTTPException(404)
        return await super().get_response(path, scope)
