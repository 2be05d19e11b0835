"""Pools: how many jobs run at once, and whether any may start."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, TypeAdapter, ValidationError
from starlette.responses import Response

from encoder_api.contract import Call, Reply, Scope, answer, operation
from encoder_api.problems import Problem
from encoder_core.documents import Document
from encoder_core.model import NOT_BOOLEAN, Instant, Model
from encoder_core.specs import Label
from encoder_db import pools
from encoder_db.pools import PoolRow, StopPolicy
from encoder_db.queue import Engine

TAG: Final = "pools"
MAX_CONCURRENCY: Final = 100_000
_NAME: Final[TypeAdapter[str]] = TypeAdapter(Label)


class PoolDocument(Document):
    """A pool and what is in it."""

    name: str
    engine: Engine
    """Who runs its jobs."""
    max_concurrency: int
    """How many jobs run at once."""
    stop_policy: StopPolicy
    """`Hold`: a pause; jobs are accepted and wait. `Drain`: it is taken out of service; new jobs
    are refused as well. In both what runs goes on."""
    max_per_owner: int | None
    """Of the places, how many one owner may hold; null: all of them."""
    active: int
    """Jobs that hold a place now."""
    queued: int
    """Jobs that wait, also those whose back-off is not over."""
    created_at: Instant
    updated_at: Instant


class PoolList(Document):
    pools: list[PoolDocument]


class NewPool(Model):
    name: Label
    max_concurrency: Annotated[int, Field(ge=0, le=MAX_CONCURRENCY), NOT_BOOLEAN]
    max_per_owner: Annotated[int, Field(ge=0, le=MAX_CONCURRENCY), NOT_BOOLEAN] = 0
    """Of the places, how many one owner may hold; 0: all of them."""


class PoolChange(Model):
    """What is left out stays as it is."""

    max_concurrency: Annotated[int, Field(ge=0, le=MAX_CONCURRENCY), NOT_BOOLEAN] | None = None
    """Lowering it stops nothing that runs."""
    stop_policy: StopPolicy | None = None
    max_per_owner: Annotated[int, Field(ge=0, le=MAX_CONCURRENCY), NOT_BOOLEAN] | None = None
    """0 takes the limit away."""


@operation(
    "GET",
    "/pools",
    tag=TAG,
    scope=Scope.JOBS_READ,
    replies={200: Reply(says="All pools.", model=PoolList)},
)
def list_pools(call: Call[None, None]) -> Response:
    """List the pools, with how much runs and waits in them."""
    with call.services.store.read() as tx:
        return answer(PoolList(pools=[_document(pool) for pool in pools.list_pools(tx)]))


@operation(
    "POST",
    "/pools",
    tag=TAG,
    scope=Scope.ADMIN,
    body=NewPool,
    refuses=("pool_exists",),
    replies={201: Reply(says="The pool.", model=PoolDocument)},
)
def create_pool(call: Call[NewPool, None]) -> Response:
    """
    Make a pool of the one-machine engine.

    On Kubernetes a pool is a TranscodePool: apply one instead.
    """
    wanted = call.body
    pool = call.services.store.run(
        lambda tx: pools.create_pool(
            tx,
            wanted.name,
            engine="local",
            max_concurrency=wanted.max_concurrency,
            max_per_owner=wanted.max_per_owner,
        )
    )
    return answer(_document(pool), 201)


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
    """Change a pool of the one-machine engine; it holds from the next job on."""
    name, change = _name(call.request.path_params["name"]), call.body
    pool = call.services.store.run(
        lambda tx: pools.set_pool(
            tx,
            name,
            max_concurrency=change.max_concurrency,
            stop_policy=change.stop_policy,
            max_per_owner=change.max_per_owner,
        )
    )
    if pool is None:
        raise _no_such_pool()
    return answer(_document(pool))


def _document(pool: PoolRow) -> PoolDocument:
    return PoolDocument.model_validate(pool, from_attributes=True)


def _name(text: str) -> str:
    try:
        return _NAME.validate_python(text)
    except ValidationError:
        raise _no_such_pool() from None


def _no_such_pool() -> Problem:
    return Problem("not_found", "There is no such pool.")
