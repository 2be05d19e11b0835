"""
Whether the watches still speak. A watch that says nothing looks like a cluster in which nothing
happens, so every write of ours is a canary: the watch has to bring it back. So is, for each kind,
the latest change that a resync finds, whoever made it: one watch may be deaf while others speak.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from encoder_core.errors import EncoderError
from encoder_operator.metrics import CONTENT_TYPE, Metrics

PATIENCE: Final = 3
"""So many canaries may be missed: a watch that was cut is back within seconds."""


class Deaf(EncoderError):
    """A watch does not bring what was written. The process is to end, and to start anew."""


@dataclass(slots=True)
class _Watch:
    highest: int = 0
    """Of the resource versions that it brought."""
    awaited: int | None = None
    since: float = 0.0
    last_event: float | None = None


class Echoes:
    """Compares what was written with what the watches bring. Versions of a server only grow."""

    def __init__(self, kinds: Iterable[str], *, patience_s: float, now: Callable[[], float]):
        self._watches = {kind: _Watch() for kind in kinds}
        self._patience_s = patience_s
        self._now = now

    def expect(self, kind: str, version: str | None) -> None:
        """There was an object of this kind with this version: so the server has answered us."""
        watch = self._watches.get(kind)
        if watch is None or version is None or not version.isdigit():
            return
        if watch.awaited is None and int(version) > watch.highest:
            watch.awaited, watch.since = int(version), self._now()

    def hear(self, kind: str, version: str, *, listed: bool) -> None:
        """
        A watch brought an object. `listed`: it began anew and lists what there is.

        Then what was awaited may be deleted already, and no later version will ever come.
        """
        watch = self._watches[kind]
        watch.last_event = self._now()
        if version.isdigit():
            watch.highest = max(watch.highest, int(version))
        if listed or (watch.awaited is not None and watch.highest >= watch.awaited):
            watch.awaited = None

    def age_s(self, kind: str) -> float | None:
        """Since it last brought something; None when it never did."""
        last = self._watches[kind].last_event
        return None if last is None else self._now() - last

    @property
    def kinds(self) -> Iterable[str]:
        return self._watches

    def deaf(self) -> list[str]:
        """The kinds whose watch owes us an echo for longer than is borne."""
        return [
            kind
            for kind, watch in self._watches.items()
            if watch.awaited is not None and self._now() - watch.since > self._patience_s
        ]

    def check(self) -> None:
        deaf = self.deaf()
        if deaf:
            raise Deaf(
                f"the watch of {', '.join(deaf)} did not bring back what was written "
                f"{self._patience_s:.0f} s ago"
            )


def build_app(
    echoes: Echoes, metrics: Metrics, *, unready: Callable[[], str | None]
) -> web.Application:
    """
    `/healthz` says whether a restart would help, `/readyz` whether it works; and `/metrics`.

    `unready` says why it does not. A database that is away makes it unready and no more: to be
    started anew brings none back.
    """

    async def healthz(_: web.Request) -> web.Response:
        deaf = echoes.deaf()
        if deaf:
            return web.Response(status=503, text=f"no echo from: {', '.join(deaf)}\n")
        return web.Response(text="ok\n")

    async def readyz(request: web.Request) -> web.Response:
        why = unready()
        return await healthz(request) if why is None else web.Response(status=503, text=f"{why}\n")

    async def exposition(_: web.Request) -> web.Response:
        for kind in echoes.kinds:
            age_s = echoes.age_s(kind)
            if age_s is not None:
                metrics.watch_age_s.labels(kind).set(age_s)
        return web.Response(body=metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/metrics", exposition),
        ]
    )
    return app
