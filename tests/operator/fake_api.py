"""An API server in memory behind the client's door: objects by path, and refusals on request."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from kubernetes.aio import client

from encoder_operator.budget import WriteBudget
from encoder_operator.health import Echoes
from encoder_operator.kube import JOBS, POOLS, Kind, Kube
from encoder_operator.metrics import Metrics


@dataclass(slots=True)
class Answer:
    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)

    async def read(self) -> bytes:
        return json.dumps(self.body).encode()


class _Configuration:
    host = "https://cluster"

    async def get_api_key_with_prefix(self, _name: str, alias: str | None = None) -> None:
        return None


class FakeApi:
    """What `kubernetes.aio`'s ApiClient is to us: one method that calls, and a configuration."""

    def __init__(self) -> None:
        self.configuration = _Configuration()
        self.objects: dict[str, dict[str, Any]] = {}
        self.refuse: dict[tuple[str, str], Answer] = {}
        """By method and the resource's plural."""
        self.away_for = 0
        """So many of the next calls reach nobody."""
        self.while_listing: Callable[[str], None] = lambda plural: None
        """Called once a list has been read, before it is answered."""
        self.gate: asyncio.Event | None = None
        """Until it is set, no call is answered."""
        self.at_once = self.most_at_once = 0
        self.around_write: Callable[[str], None] = lambda moment: None
        """Called before and after each write."""
        self.writes: list[str] = []
        """Method and kind of each that changed something, in order."""
        self._uids = itertools.count(1)
        self._versions = itertools.count(1)

    def kube(
        self,
        *,
        budget: WriteBudget | None = None,
        echoes: Echoes | None = None,
        metrics: Metrics | None = None,
        in_flight: int = 8,
    ) -> Kube:
        return Kube(
            cast(client.ApiClient, self),
            namespace="work",
            budget=budget or WriteBudget(1000.0, burst=1000, now=lambda: 0.0),
            echoes=echoes or Echoes((), patience_s=1.0, now=lambda: 0.0),
            metrics=metrics or Metrics(),
            in_flight=in_flight,
        )

    def all(self, kind: Kind) -> list[dict[str, Any]]:
        """What exists of a kind."""
        start = kind.path("work") + "/"
        return [body for path, body in self.objects.items() if path.startswith(start)]

    def put(self, kind: Kind, name: str, **parts: Any) -> dict[str, Any]:
        """An object that exists."""
        metadata = {"name": name, "uid": f"uid-{next(self._uids)}", **parts.pop("metadata", {})}
        body = {"metadata": metadata, **parts}
        self.objects[kind.path("work", name)] = body
        return body

    def put_spec(self, pool: str, spec: dict[str, Any]) -> None:
        """As kubectl changes a pool."""
        body = self.objects[POOLS.path("work", pool)]
        body["spec"] = spec
        body["metadata"]["generation"] = body["metadata"].get("generation", 1) + 1

    async def call_api(
        self, method: str, url: str, *, header_params: Any, body: Any, _request_timeout: float
    ) -> Answer:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.gate is not None:
                await self.gate.wait()
            return self._call(method, url, body)
        finally:
            self.at_once -= 1

    def _call(self, method: str, url: str, body: Any) -> Answer:
        if self.away_for:
            self.away_for -= 1
            raise ConnectionRefusedError
        if method == "GET":
            return self._answer(method, url, body)
        self.around_write(f"before {method} {url.rpartition('/')[2][:40]}")
        answer = self._answer(method, url, body)
        self.around_write(f"after {method} {answer.status}")
        return answer

    def _answer(self, method: str, url: str, body: Any) -> Answer:
        path = urlsplit(url).path
        if "/namespaces/" not in path:
            return Answer(200, {"resources": [{"name": kind.plural} for kind in (JOBS, POOLS)]})
        plural = path.split("/namespaces/work/")[1].split("/")[0]
        if (method, plural) in self.refuse:
            return self.refuse[method, plural]
        if path.endswith(f"/{plural}"):
            return self._of_all(method, url, plural, body)
        if method == "PATCH":
            return self._apply_status(path, plural, body)
        found = self.objects.get(path)
        if found is None:
            return refusal(404, "NotFound")
        if method == "DELETE":
            self.writes.append(f"DELETE {plural}")
            self._delete(path, found)
        return Answer(200, found)

    def _apply_status(self, path: str, plural: str, body: Any) -> Answer:
        found = self.objects.get(path.removesuffix("/status"))
        if found is None:
            return refusal(404, "NotFound")
        uid = found["metadata"].get("uid")
        if body.get("metadata", {}).get("uid", uid) != uid:
            return refusal(409, "Conflict")
        self.writes.append(f"PATCH {plural}/status")
        if found.get("status") != body["status"]:
            found["status"] = body["status"]
            found["metadata"]["resourceVersion"] = str(next(self._versions))
        return Answer(200, found)

    def _delete(self, path: str, found: dict[str, Any]) -> None:
        """With what it owns, as the garbage collector does."""
        self.objects.pop(path, None)
        for at, other in list(self.objects.items()):
            owners = other["metadata"].get("ownerReferences") or []
            if any(owner["uid"] == found["metadata"]["uid"] for owner in owners):
                self._delete(at, other)

    def _of_all(self, method: str, url: str, plural: str, body: Any) -> Answer:
        path, query = urlsplit(url).path, parse_qs(urlsplit(url).query)
        if method == "GET":
            items = [item for at, item in self.objects.items() if at.startswith(f"{path}/")]
            self.while_listing(plural)
            first, count = int(query.get("continue", ["0"])[0]), int(query["limit"][0])
            after = first + count
            more = {"continue": str(after)} if after < len(items) else {}
            return Answer(200, {"items": items[first:after], "metadata": more})
        at = f"{path}/{body['metadata']['name']}"
        if at in self.objects:
            return refusal(409, "AlreadyExists")
        self.writes.append(f"POST {plural}")
        metadata = {
            **body["metadata"],
            "uid": f"uid-{next(self._uids)}",
            "resourceVersion": str(next(self._versions)),
        }
        self.objects[at] = {**body, "metadata": metadata}
        return Answer(201, self.objects[at])


def refusal(status: int, reason: str, message: str = "no") -> Answer:
    return Answer(status, {"reason": reason, "message": message})
