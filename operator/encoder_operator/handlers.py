"""Every watch of the operator: its table of contents. Handlers remember, and wake a key."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import kopf

from encoder_core.names import GROUP, JOB_LABEL, VERSION
from encoder_operator.forgetful import NoDiff, NoProgress

if TYPE_CHECKING:
    from encoder_operator.operator import Operator


SERVER_TIMEOUT_S: Final = 300
PAUSES_S: Final = (0.2, 0.5, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2)
"""kopf's own go up to 21 s: events would come that late after a hiccup."""


class Pauses:
    """Between the tries of one call: stretched at random by up to half, anew for each call."""

    def __init__(self, seconds: tuple[float, ...], *, jitter: Callable[[], float]) -> None:
        self._seconds = seconds
        self._jitter = jitter

    def __len__(self) -> int:
        return len(self._seconds)

    def __iter__(self) -> Iterator[float]:
        for seconds in self._seconds:
            yield seconds * (1 + self._jitter() / 2)


def configure(
    settings: kopf.OperatorSettings, *, jitter: Callable[[], float] = random.random
) -> None:
    """What kopf is to do besides calling our handlers: as little as it can."""
    settings.scanning.disabled = True  # no rights on namespaces and CRDs are needed then
    settings.posting.enabled = False
    settings.watching.label_selectors["v1/pods"] = JOB_LABEL
    settings.watching.chunk_size = 500  # a list of all at once is held three times over
    # So long is each object held whole after its event: after a list, by default, all for 5 s.
    settings.queueing.idle_timeout = 0.2
    settings.watching.server_timeout = SERVER_TIMEOUT_S
    # Of a server that forgets to end a watch. In between, bookmarks come once a minute.
    settings.watching.client_timeout = SERVER_TIMEOUT_S + 30.0
    settings.watching.connect_timeout = 5.0
    settings.watching.reconnect_backoff = 1.0
    settings.networking.request_timeout = 30.0
    settings.networking.connect_timeout = 5.0
    settings.networking.error_backoffs = Pauses(PAUSES_S, jitter=jitter)
    settings.persistence.finalizer = f"{GROUP}/never-used"
    settings.persistence.diffbase_storage = NoDiff()
    settings.persistence.progress_storage = NoProgress()


def register(registry: kopf.OperatorRegistry, operator: Operator) -> None:
    """Only `on.event`: kopf writes nothing to the objects, and keeps no state of its own."""

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.startup(registry=registry)
    async def begin(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings)

    @kopf.on.event(GROUP, VERSION, "transcodejobs", registry=registry)
    async def job_changed(event: kopf.RawEvent, **_: Any) -> None:
        operator.job_changed(event["type"], event["object"])

    @kopf.on.event("", "v1", "pods", labels={JOB_LABEL: kopf.PRESENT}, registry=registry)
    async def pod_changed(event: kopf.RawEvent, **_: Any) -> None:
        operator.pod_changed(event["type"], event["object"])

    @kopf.on.event(GROUP, VERSION, "transcodepools", registry=registry)
    async def pool_changed(event: kopf.RawEvent, **_: Any) -> None:
        operator.pool_changed(event["type"], event["object"])
