"""
Stands in for workers, and for nodes and the garbage collector where an API server is all there is.

`python -m tests.harness.standin PLAYS SERVER CA CERTIFICATE KEY NAMESPACE RUN_S` reports for the
worker of each Pod that runs into the record (MYSQL_… says where): it began, and after RUN_S seconds
(negative: never) it succeeded. PLAYS is `workers`, which is all of that, or `nodes`: then it sets
Pods to Running and to Succeeded too, and deletes the Pods and Secrets of a TranscodeJob that was.
What it sees first it says on standard output: `pod NAME SECONDS`, `gone NAME SECONDS`.
A pool whose Pods have the annotation `standin/does` has others: `waits` gets no container, `stays`
runs without an end.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import aiohttp

from encoder_core.names import ATTEMPT_LABEL, JOB_LABEL, ORDER_PREFIX
from encoder_core.reports import (
    Envelope,
    FinalReport,
    Outcome,
    OutputFile,
    OutputReport,
    OutputResult,
    Report,
    Started,
)
from encoder_core.states import OutputStatus
from encoder_db.reports import apply_report
from encoder_db.settings import DatabaseSettings, SecretSettings
from encoder_db.store import Store, open_store
from tests.operator.invariants import mark

MERGE = {"Content-Type": "application/merge-patch+json"}
DOES = "standin/does"


def running(now: str) -> dict[str, Any]:
    return {
        "phase": "Running",
        "startTime": now,
        "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": now}],
        "containerStatuses": [
            {
                "name": "worker", "image": "i", "imageID": "", "ready": True, "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            }
        ],
    }  # fmt: skip


def succeeded(began: str, now: str) -> dict[str, Any]:
    ended = {"exitCode": 0, "reason": "Completed", "startedAt": began, "finishedAt": now}
    return {
        "phase": "Succeeded",
        "containerStatuses": [
            {
                "name": "worker", "image": "i", "imageID": "", "ready": False, "restartCount": 0,
                "state": {"terminated": ended},
            }
        ],
    }  # fmt: skip


def final(outputs: int, attempt: int) -> FinalReport:
    def uploaded(index: int) -> OutputReport:
        file = OutputFile(
            url=f"s3://clips/{index}.mp4",
            size_bytes=9,
            sha256=mark(attempt),
            content_type="video/mp4",
        )
        result = OutputResult(files=[file], size_bytes=9, duration_s=2.0)
        return OutputReport(index=index, status=OutputStatus.UPLOADED, result=result)

    return FinalReport(outcome=Outcome.SUCCEEDED, outputs=[uploaded(i) for i in range(outputs)])


class StandIn:
    def __init__(
        self,
        session: aiohttp.ClientSession,
        store: Store,
        namespace: str,
        run_s: float,
        *,
        plays_nodes: bool,
    ) -> None:
        self._session = session
        self._store = store
        self._core = f"/api/v1/namespaces/{namespace}"
        self._jobs = f"/apis/encoder.dev/v1alpha1/namespaces/{namespace}/transcodejobs"
        self._run_s = run_s
        self._plays_nodes = plays_nodes
        self._seen: set[str] = set()
        self._begun: set[str] = set()
        self._at_once = asyncio.Semaphore(32)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_pods(group))
            group.create_task(self._watch_jobs(group))

    async def _watch_pods(self, group: asyncio.TaskGroup) -> None:
        async for event, pod in self._events(f"{self._core}/pods"):
            uid, phase = pod["metadata"]["uid"], pod.get("status", {}).get("phase", "Pending")
            if event == "DELETED":
                self._seen.discard(uid)
                self._begun.discard(uid)
                continue
            if uid not in self._seen:
                self._seen.add(uid)
                if phase in ("Pending", "Running"):
                    print("pod", pod["metadata"]["name"], time.time(), flush=True)
            runs = phase == "Running" or (phase == "Pending" and self._plays_nodes)
            if runs and uid not in self._begun:
                self._begun.add(uid)
                group.create_task(self._work(pod))

    async def _watch_jobs(self, group: asyncio.TaskGroup) -> None:
        async for event, job in self._events(self._jobs):
            if event == "DELETED":
                print("gone", job["metadata"]["name"], time.time(), flush=True)
                if self._plays_nodes:
                    group.create_task(self._collect(job))

    async def _collect(self, job: dict[str, Any]) -> None:
        for attempt in range(1, job.get("status", {}).get("attempt", 1) + 1):
            name = f"{job['metadata']['name']}-a{attempt}"
            for owned in (f"pods/{name}", f"secrets/{ORDER_PREFIX}{name}"):
                await self._call("DELETE", f"{self._core}/{owned}?gracePeriodSeconds=0")

    async def _work(self, pod: dict[str, Any]) -> None:
        name, labels = pod["metadata"]["name"], pod["metadata"]["labels"]
        does = pod["metadata"].get("annotations", {}).get(DOES)
        if does == "waits":
            return
        began = stamp()
        async with self._at_once:
            secret = await self._call("GET", f"{self._core}/secrets/{ORDER_PREFIX}{name}")
            if secret is None or JOB_LABEL not in labels:
                return
            order = json.loads(base64.b64decode(secret["data"]["order.json"]))
            attempt = int(labels[ATTEMPT_LABEL])
            if self._plays_nodes and not await self._status(name, running(began)):
                return
            await self._say(order, attempt, Started())
        if self._run_s < 0 or does == "stays":
            return
        await asyncio.sleep(self._run_s)
        async with self._at_once:
            await self._say(order, attempt, final(len(order["outputs"]), attempt))
            if self._plays_nodes:
                await self._status(name, succeeded(began, stamp()))

    async def _say(self, order: dict[str, Any], attempt: int, report: Report) -> None:
        envelope = Envelope(
            job_uuid=order["jobUuid"], attempt=attempt, token=order["token"], report=report
        )
        await asyncio.to_thread(apply_report, self._store, envelope)

    async def _status(self, name: str, status: dict[str, Any]) -> bool:
        path = f"{self._core}/pods/{name}/status"
        return await self._call("PATCH", path, {"status": status}, headers=MERGE) is not None

    async def _call(
        self, method: str, path: str, body: Any = None, headers: Any = None
    ) -> dict[str, Any] | None:
        """None when there is no such object. Asked until it is answered: each may be done twice."""
        data = None if body is None else json.dumps(body)
        while True:
            with suppress(aiohttp.ClientConnectionError, TimeoutError):
                async with self._session.request(method, path, data=data, headers=headers) as got:
                    if got.status == 404:
                        return None
                    if got.status != 429 and got.status < 500:
                        got.raise_for_status()
                        found: dict[str, Any] = await got.json()
                        return found
            await asyncio.sleep(0.5)  # the server begins to serve a kind, or is busy

    async def _events(self, path: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """What was deleted between two watches is told as well: the next list lacks it."""
        known: dict[str, dict[str, Any]] = {}
        while True:
            listed = await self._call("GET", path)
            if listed is None:  # the kind was taken out of the cluster
                listed = {"items": [], "metadata": {}}
            there = {item["metadata"]["uid"]: item for item in listed["items"]}
            for uid in known.keys() - there.keys():
                yield "DELETED", known[uid]
            known = there
            for item in there.values():
                yield "ADDED", item
            if not listed["metadata"]:
                await asyncio.sleep(0.5)
                continue
            version = listed["metadata"]["resourceVersion"]
            query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "600"}
            try:
                async with self._session.get(path, params=query, timeout=None) as stream:
                    async for line in stream.content:
                        event = json.loads(line)
                        if event.get("type") in (None, "ERROR"):
                            break
                        uid = event["object"]["metadata"]["uid"]
                        known[uid] = event["object"]
                        if event["type"] == "DELETED":
                            del known[uid]
                        yield event["type"], event["object"]
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.2)


def stamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def main(
    server: str,
    tls: ssl.SSLContext,
    store: Store,
    namespace: str,
    run_s: float,
    *,
    plays_nodes: bool,
) -> None:
    connector = aiohttp.TCPConnector(ssl=tls, limit=64)
    async with aiohttp.ClientSession(server, connector=connector, read_bufsize=2**20) as session:
        await StandIn(session, store, namespace, run_s, plays_nodes=plays_nodes).run()


if __name__ == "__main__":
    plays, address, authority, certificate, key, where, seconds = sys.argv[1:]
    assert plays in ("workers", "nodes"), plays
    context = ssl.create_default_context(cafile=authority)
    context.load_cert_chain(certificate, key)
    with open_store(DatabaseSettings(), SecretSettings()) as record:
        asyncio.run(
            main(address, context, record, where, float(seconds), plays_nodes=plays == "nodes")
        )
