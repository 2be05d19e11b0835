"""Somebody who watches the Pods of a namespace and misses none: each change, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from tests.harness.cluster import Cluster

MARK = "witness"
MARKER: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"generateName": f"{MARK}-", "labels": {MARK: ""}},
    "spec": {"containers": [{"name": "none", "image": "none"}]},
}
SEEN_S = 60.0

Look = Callable[[Iterable[Mapping[str, Any]]], None]


@contextmanager
def pods_watched(cluster: Cluster, namespace: str, look: Look) -> Iterator[None]:
    """
    `look` is shown all Pods that there are, after each change, by another thread.

    At the end a Pod of its own is made: once that is seen, so is all that was before.
    """
    path = f"/api/v1/namespaces/{namespace}/pods"
    listed = cluster.get(path)
    there: dict[str, Mapping[str, Any]] = {pod["metadata"]["uid"]: pod for pod in listed["items"]}
    version = listed["metadata"]["resourceVersion"]

    def watch() -> None:
        look(there.values())
        for event in cluster.watch(f"{path}?watch=1&resourceVersion={version}"):
            pod = event["object"]
            assert event["type"] != "ERROR", pod
            if MARK in pod["metadata"].get("labels", {}):
                return
            if event["type"] == "DELETED":
                there.pop(pod["metadata"]["uid"], None)
            else:
                there[pod["metadata"]["uid"]] = pod
            look(there.values())
        raise AssertionError("the witness was sent away")

    with ThreadPoolExecutor(1) as threads:
        watching = threads.submit(watch)
        try:
            yield
        finally:
            status, made = cluster.send("POST", path, MARKER)
            assert status == 201, made
            watching.result(timeout=SEEN_S)
            cluster.send("DELETE", f"{path}/{made['metadata']['name']}?gracePeriodSeconds=0")
