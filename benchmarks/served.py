"""
A server in a process of its own, alone: `python -m benchmarks.served URL` is the API on a database.

`python -m benchmarks.served empty` is what no service on this framework can be faster than: one
route that answers 202 and does nothing, on the same server.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from encoder_api.app import create_app
from encoder_api.server import ApiServer, listen
from encoder_api.settings import ApiSettings
from encoder_core.logs import configure_logging
from encoder_db.migrations import migrate
from encoder_db.store import Store


def main() -> None:
    """Prints its address, and ends with its standard input. Neither sender nor runner beside it."""
    configure_logging()
    if sys.argv[1] == "empty":
        serve_nothing()
        return
    with Store.open(sys.argv[1]) as store:
        migrate(store)
        settings = ApiSettings(port=0, rate_limit_per_s=0)  # one key sends all that there is
        server = ApiServer(create_app(settings, store), host="127.0.0.1", port=0)
        when_input_ends(server.stop)
        server.run(ready=lambda: print(server.url, flush=True))


def serve_nothing() -> None:
    async def accept(request: Request) -> Response:
        await request.body()
        return Response(status_code=202)

    app = Starlette(routes=[Route("/jobs", accept, methods=["POST"])])
    server = uvicorn.Server(
        uvicorn.Config(
            app, http="httptools", loop="uvloop", log_config=None, access_log=False, lifespan="off"
        )
    )

    def stop() -> None:
        server.should_exit = True

    when_input_ends(stop)
    with listen("127.0.0.1", 0) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        server.run(sockets=[listening])


def when_input_ends(stop: Callable[[], None]) -> None:
    def wait() -> None:
        sys.stdin.read()
        stop()

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    main()
