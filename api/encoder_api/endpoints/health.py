"""Whether the service lives, is ready, and how it does."""

from __future__ import annotations

from typing import Final

import anyio
import anyio.to_thread
from starlette.responses import Response

from encoder_api.contract import Call, Reply, answer, operation
from encoder_api.metrics import CONTENT_TYPE
from encoder_api.services import Services
from encoder_core.documents import Document

TAG: Final = "service"
PING_S: Final = 1.0  # a database that takes longer is one that clients should not wait for
OK: Final = "ok"


class Health(Document):
    status: str
    """`ok`, or `unavailable` when a component is not `ok`."""
    components: dict[str, str] = {}


@operation(
    "GET", "/livez", tag=TAG, scope=None, replies={200: Reply(says="It lives.", model=Health)}
)
async def check_live(call: Call[None, None]) -> Response:
    """Say that the process answers; asks nothing else, so that a database cannot have it killed."""
    return answer(Health(status=OK))


@operation(
    "GET",
    "/readyz",
    tag=TAG,
    scope=None,
    replies={
        200: Reply(says="Send requests.", model=Health),
        503: Reply(says="Send no requests now.", model=Health),
    },
)
async def check_ready(call: Call[None, None]) -> Response:
    """Say whether requests should be sent here: the database answers and no stop is under way."""
    services = call.services
    draining = "stopping" if services.draining.is_set() else OK
    return _say({"process": draining, "database": await database_health(services)})


@operation(
    "GET",
    "/health",
    tag=TAG,
    scope=None,
    replies={
        200: Reply(says="All is well.", model=Health),
        503: Reply(says="Something is not; the components say what.", model=Health),
    },
)
async def check_health(call: Call[None, None]) -> Response:
    """Say how the service does."""
    return _say({"database": await database_health(call.services)})


@operation(
    "GET",
    "/metrics",
    tag=TAG,
    scope=None,
    replies={200: Reply(says="Metrics for Prometheus.", media_type="text/plain")},
)
def read_metrics(call: Call[None, None]) -> Response:
    """
    Read the metrics of this process, and of what the record holds.

    The record is counted every five seconds at most.
    """
    return Response(call.services.metrics.render(), headers={"Content-Type": CONTENT_TYPE})


def _say(components: dict[str, str]) -> Response:
    well = all(component == OK for component in components.values())
    health = Health(status=OK if well else "unavailable", components=components)
    return answer(health, 200 if well else 503)


async def database_health(services: Services) -> str:
    """Ask the database at most once a second, however many probes there are."""
    with anyio.move_on_after(PING_S):
        return await anyio.to_thread.run_sync(
            services.health.ask, abandon_on_cancel=True, limiter=services.health.places
        )
    return "slow"
