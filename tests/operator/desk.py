"""The operator's loop in one hand: a record, an API server in memory, and Pods that tests move."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from typing import Any

from encoder_core.names import pod_name, resource_name, secret_name
from encoder_core.reports import AmbientCredentials, Envelope, Report
from encoder_core.retries import RetryLimits
from encoder_db.reports import apply_report
from encoder_db.rows import JobRow
from encoder_db.store import Store
from encoder_operator.act import Actor
from encoder_operator.cache import Cache
from encoder_operator.dispatch import Dispatcher
from encoder_operator.kube import EVENTS, JOBS, PODS, POOLS, SECRETS
from encoder_operator.limit import Limit
from encoder_operator.metrics import Metrics
from encoder_operator.operator import keep_house
from encoder_operator.pods import PodSettings
from encoder_operator.policy import PoolPolicy
from encoder_operator.poolkeeper import PoolKeeper
from encoder_operator.reconcile import Reconciler
from encoder_operator.seen import parse_job, parse_pod, parse_pool
from encoder_operator.sizing import Wanted
from tests.db import builders as make
from tests.operator.fake_api import FakeApi

RUNNING: dict[str, Any] = {
    "phase": "Running",
    "conditions": [{"type": "PodScheduled", "status": "True"}],
    "containerStatuses": [{"name": "worker", "state": {"running": {}}}],
}
BY_HAND: dict[str, Any] = {
    "source": {"kind": "https", "url": "https://media.example/in.mov"},
    "outputs": [{"destination": {"kind": "s3", "bucket": "clips", "path": "out.mp4"}}],
}
SUCCEEDED: dict[str, Any] = {
    "phase": "Succeeded",
    "containerStatuses": [{"name": "worker", "state": {"terminated": {"exitCode": 0}}}],
}


class Desk:
    """`another()` is a second operator over the same record and the same cluster."""

    def __init__(
        self,
        store: Store,
        api: FakeApi | None = None,
        *,
        places: int = 1,
        max_running: int = 100,
        **policy: Any,
    ) -> None:
        self.store, self.cache, self.metrics = store, Cache(), Metrics()
        self.api = api or FakeApi()
        self.pool = "k8s"
        if api is None:
            make.kubernetes_pool(store, places=places)
            self.api.put(POOLS, self.pool, spec={"maxConcurrency": places})
        kube = self.kube = self.api.kube(metrics=self.metrics)
        actor = self.actor = Actor(
            store=store,
            kube=kube,
            cache=self.cache,
            worker=f"operator-{id(self)}",
            pods=PodSettings(image="worker"),
            report_url="http://api/internal/reports",
            allowed_cidrs=(),
            denied_cidrs=(),
            ambient=AmbientCredentials(),
            wanted=Wanted(),
            defaults=replace(PoolPolicy(), **policy),
            metrics=self.metrics,
        )
        self.changed: list[str] = []
        """Pools whose jobs the keeper had looked at."""
        limit = Limit(max_running)
        self.keeper = PoolKeeper(
            store,
            kube,
            self.cache,
            self.metrics,
            changed=self.changed.append,
            full=limit.reached,
        )
        self._reconciler = Reconciler(store=store, kube=kube, cache=self.cache, actor=actor)
        self._dispatcher = Dispatcher(
            store=store,
            kube=kube,
            cache=self.cache,
            worker=f"operator-{id(self)}",
            limits=RetryLimits(),
            poll_s=1.0,
            limit=limit,
            wake=lambda _: None,
            blocked=lambda: {pool for pool in self.cache.pools if self.keeper.blocked(pool)},
            metrics=self.metrics,
        )

    def another(self) -> Desk:
        return Desk(self.store, self.api)

    # --- The loop --------------------------------------------------------------------------------

    def dispatch(self) -> int:
        self.watch()
        return asyncio.run(self._dispatcher.round())

    def sweep(self) -> None:
        """What the operator does once a minute."""
        keep_house(self.store, self.metrics, worker=self._dispatcher.worker, limits=RetryLimits())

    def settle(self, name: str) -> None:
        """Until there is nothing more to do for it now."""
        for _ in range(20):
            self.watch()
            if asyncio.run(self._reconciler(name)) != 0:
                self.watch()
                return
        raise AssertionError(f"{name} does not settle: {self.api.writes[-10:]}")

    def look(self, name: str) -> None:
        """The same, while the watches bring nothing."""
        while asyncio.run(self._reconciler(name)) == 0:
            pass

    def look_once(self, name: str) -> float | None:
        """Once, by what is known: nothing comes from the watches."""
        return asyncio.run(self._reconciler(name))

    def watch(self) -> None:
        """What the watches would have brought by now."""
        pods = [parse_pod(body) for body in self.api.all(PODS)]
        self.cache.replace(
            jobs=map(parse_job, self.api.all(JOBS)),
            pods=[pod for pod in pods if pod],
            pools=map(parse_pool, self.api.all(POOLS)),
        )

    def keep_pool(self) -> None:
        self.watch()
        asyncio.run(self.keeper.reconcile(self.pool))

    # --- The world -------------------------------------------------------------------------------

    def submit(self) -> JobRow:
        return make.create(self.store, make.spec(pool=self.pool))

    def admitted(self) -> tuple[JobRow, str]:
        """A job whose Pod is there, and its resource's name."""
        job = self.submit()
        self.dispatch()
        name = resource_name(job.uuid)
        self.settle(name)
        return job, name

    def apply(self, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        """As somebody does with kubectl."""
        return self.api.put(JOBS, name, spec={"poolRef": {"name": self.pool}, **spec})

    def pod(self, name: str, attempt: int = 1) -> dict[str, Any]:
        return self.api.objects[PODS.path("work", pod_name(name, attempt))]

    def move_pod(self, name: str, status: dict[str, Any], *, attempt: int = 1) -> None:
        self.pod(name, attempt)["status"] = status

    def say(self, job: JobRow, report: Report, *, attempt: int = 1) -> bool:
        """A report of the worker, with the token that its Pod was given."""
        return self.say_of(resource_name(job.uuid), report, attempt=attempt)

    def say_of(self, name: str, report: Report, *, attempt: int = 1) -> bool:
        """The same, by the name of the resource."""
        return self.say_by(self.order(name, attempt), report)

    def say_by(self, order: dict[str, Any], report: Report) -> bool:
        """The same, by a worker that was told that."""
        envelope = Envelope(
            job_uuid=order["jobUuid"],
            attempt=order["attempt"],
            token=order["token"],
            report=report,
        )
        return apply_report(self.store, envelope).accepted

    def order_of(self, job: JobRow, attempt: int = 1) -> dict[str, Any]:
        """What the Pod of an attempt is told to do."""
        return self.order(resource_name(job.uuid), attempt)

    def order(self, name: str, attempt: int = 1) -> dict[str, Any]:
        path = SECRETS.path("work", secret_name(name, attempt))
        data = self.api.objects[path]["data"]["order.json"]
        order: dict[str, Any] = json.loads(base64.b64decode(data))
        return order

    def condition(self, name: str, type_: str) -> tuple[str, str, str]:
        conditions = self.api.objects[JOBS.path("work", name)]["status"]["conditions"]
        (found,) = [c for c in conditions if c["type"] == type_]
        return found["status"], found["reason"], found["message"]

    def pool_condition(self, type_: str) -> str:
        return self.told_of_pool(type_)[0]

    def told_of_pool(self, type_: str) -> tuple[str, str, str]:
        """Status, reason and message of a condition."""
        conditions = self.api.objects[POOLS.path("work", self.pool)]["status"]["conditions"]
        (found,) = [c for c in conditions if c["type"] == type_]
        return found["status"], found["reason"], found["message"]

    def events(self) -> list[str]:
        return [event["reason"] for event in self.api.all(EVENTS)]
