"""Pools: how many jobs run at once, and whether any may start."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import Field
from starlette.responses import Response

from encoder_api.contract import Call, Reply, Scope, answer, operation
from encoder_core.documents import Document
from encoder_core.model import Model
from encoder_db import pools

TAG: Final = "pools"
StopPolicy = Literal["None", "Hold", "Drain"]


class PoolDocument(Document):
    """A pool as its row has it."""

    name: str
    engine: Literal["local", "kubernetes"]
    """Who runs its jobs."""
    max_concurrency: int
    """How many jobs run at once. Lowering it stops nothing that runs."""
    stop_policy: StopPolicy
    """`Hold`: nothing new starts. `Drain`: the same, and it is to become empty."""
    active: int
    """Jobs that hold a place now."""
    queued: int
    """Jobs that wait."""
    updated_at: datetime


class PoolList(Document):
    pools: list[PoolDocument]


class PoolChange(Model):
    """What is left out stays as it is."""

    max_concurrency: Annotated[int, Field(ge=0, le=100_000)] | None = None
    stop_policy: StopPolicy | None = None


@operation(
    "GET",
    "/pools",
    tag=TAG,
    scope=Scope.JOBS_READ,
    replies={200: Reply(says="All pools.", model=PoolList)},
)
def list_pools(call: Call[None, None]) -> Response:
    """List the pools with what runs and waits in them."""
    with call.services.store.read() as tx:
        return answer(PoolList(pools=[_document(pool) for pool in pools.list_pools(tx)]))


@operation(
    "PATCH",
    "/pools/{name}",
    tag=TAG,
    scope=Scope.ADMIN,
    body=PoolChange,
    refuses=("pool_ruled_by_cluster",),
    replies={200: Reply(says="The pool as it is now.", model=PoolDocument)},
)
def change_pool(call: Call[PoolChange, None]) -> Response:
    """Change a pool; it takes effect with the next claim."""
    name, change = call.request.path_params["name"], call.body
    raise NotImplementedError
