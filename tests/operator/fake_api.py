"""An API server in memory behind the client's door: objects by path, and refusals on request."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

from kubernetes.aio import client

from encoder_operator.budget import WriteBudget
from encoder_operator.kube import Kind, Kube


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
        self.while_listing: Callable[[str], None] = lambda plural: None
        """Called once a list has been read, before it is answered."""
        self._uids = itertools.count(1)

    def kube(self) -> Kube:
        budget = WriteBudget(1000.0, burst=1000, now=lambda: 0.0)
        return Kube(cast(client.ApiClient, self), namespace="work", budget=budget)

    def put(self, kind: Kind, name: str, **parts: Any) -> dict[str, Any]:
        """An object that exists."""
        metadata = {"name": name, "uid": f"uid-{next(self._uids)}", **parts.pop("metadata", {})}
        body = {"metadata": metadata, **parts}
        self.objects[kind.path("work", name)] = body
        return body

    async def call_api(
        self, method: str, url: str, *, header_params: Any, body: Any, _request_timeout: float
    ) -> Answer:
        path = urlsplit(url).path
        plural = path.split("/namespaces/work/")[1].split("/")[0]
        if (method, plural) in self.refuse:
            return self.refuse[method, plural]
        if path.endswith(f"/{plural}"):
            return self._of_all(method, path, plural, body)
        found = self.objects.get(path)
        if found is None:
            return refusal(404, "NotFound")
        if method == "DELETE":
            del self.objects[path]
        return Answer(200, found)

    def _of_all(self, method: str, path: str, plural: str, body: Any) -> Answer:
        if method == "GET":
            items = [item for at, item in self.objects.items() if at.startswith(f"{path}/")]
            self.while_listing(plural)
            return Answer(200, {"items": items, "metadata": {}})
        at = f"{path}/{body['metadata']['name']}"
        if at in self.objects:
            return refusal(409, "AlreadyExists")
        metadata = {**body["metadata"], "uid": f"uid-{next(self._uids)}"}
        self.objects[at] = {**body, "metadata": metadata}
        return Answer(201, self.objects[at])


def refusal(status: int, reason: str, message: str = "no") -> Answer:
    return Answer(status, {"reason": reason, "message": message})
