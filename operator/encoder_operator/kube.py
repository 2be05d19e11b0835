"""The only module that talks to the Kubernetes API. Wraps its errors, spends the write budget."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from kubernetes.aio import client, config

from encoder_core.errors import EncoderError
from encoder_core.names import GROUP, VERSION
from encoder_operator.budget import WriteBudget

REQUEST_TIMEOUT_S: Final = 30.0
FIELD_MANAGER: Final = "encoder-operator"
MERGE_PATCH: Final = "application/merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"


class KubeError(EncoderError):
    """The API server refused or did not answer. `status` is 0 when it did not answer."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def not_found(self) -> bool:
        return self.status == 404

    @property
    def exists_already(self) -> bool:
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def over_quota(self) -> bool:
        return self.status == 403 and "quota" in self.message

    @property
    def denied(self) -> bool:
        return self.status == 403

    @property
    def invalid(self) -> bool:
        return self.status in (400, 422)


@dataclass(frozen=True, slots=True)
class Kind:
    """Where the objects of a kind live."""

    prefix: str
    plural: str

    def path(self, namespace: str, name: str | None = None, subresource: str | None = None) -> str:
        parts = [self.prefix, "namespaces", namespace, self.plural, name, subresource]
        return "/".join(part for part in parts if part)


PODS: Final = Kind("/api/v1", "pods")
SECRETS: Final = Kind("/api/v1", "secrets")
EVENTS: Final = Kind("/api/v1", "events")
JOBS: Final = Kind(f"/apis/{GROUP}/{VERSION}", "transcodejobs")
POOLS: Final = Kind(f"/apis/{GROUP}/{VERSION}", "transcodepools")


class Kube:
    """A client for one namespace. Every method raises KubeError."""

    def __init__(self, api: client.ApiClient, *, namespace: str, budget: WriteBudget) -> None:
        self._api = api
        self._namespace = namespace
        self._budget = budget

    @property
    def namespace(self) -> str:
        return self._namespace

    async def list_all(self, kind: Kind, *, label: str | None = None) -> list[dict[str, Any]]:
        """All objects of a kind, 500 at a time. Items come without apiVersion and kind."""
        items: list[dict[str, Any]] = []
        query = "?limit=500" + (f"&labelSelector={label}" if label else "")
        more = ""
        while True:
            page = await self._call("GET", kind.path(self._namespace) + query + more)
            items += page["items"]
            token = page["metadata"].get("continue")
            if not token:
                return items
            more = f"&continue={token}"

    async def get(self, kind: Kind, name: str) -> dict[str, Any]:
        return await self._call("GET", kind.path(self._namespace, name))

    async def create(self, kind: Kind, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._write("POST", kind.path(self._namespace), body, "application/json")

    async def patch(self, kind: Kind, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._write("PATCH", kind.path(self._namespace, name), body, MERGE_PATCH)

    async def apply_status(self, kind: Kind, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """
        Set the whole status that we own.

        Server-side apply, since a merge patch would replace the list of conditions as a whole and
        a stale one would not be noticed.
        """
        path = kind.path(self._namespace, name, "status")
        query = f"?fieldManager={FIELD_MANAGER}&force=true"
        return await self._write("PATCH", path + query, body, APPLY_PATCH)

    async def delete(self, kind: Kind, name: str, *, uid: str | None = None) -> None:
        """Delete an object, if it is still the one with this uid. Gone already is success."""
        body: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            await self._write("DELETE", kind.path(self._namespace, name), body, "application/json")
        except KubeError as error:
            # 409 here is another uid under the same name: ours is gone.
            if error.status not in (404, 409):
                raise

    async def _write(
        self, method: str, path: str, body: Mapping[str, Any], content_type: str
    ) -> dict[str, Any]:
        await self._budget.take()
        return await self._call(method, path, body, content_type)

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content_type: str | None = None,
    ) -> dict[str, Any]:
        headers = {"Accept": "application/json"}
        if content_type is not None:
            headers["Content-Type"] = content_type
        await self._authenticate(headers)
        try:
            response = await self._api.call_api(
                method,
                self._api.configuration.host + path,
                header_params=headers,
                body=body,
                _request_timeout=REQUEST_TIMEOUT_S,
            )
            raw = await response.read()
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            raise KubeError(0, "Unreachable", str(error)) from error
        answer: dict[str, Any] = json.loads(raw) if raw else {}
        if response.status >= 400:
            if response.status == 429:
                self._budget.throttled(_retry_after_s(response.headers))
            raise KubeError(
                response.status, answer.get("reason", ""), answer.get("message", "")[:1024]
            )
        return answer

    async def _authenticate(self, headers: dict[str, str]) -> None:
        # Read for each call: a projected token is renewed under our feet.
        token = await self._api.configuration.get_api_key_with_prefix(
            "BearerToken", alias="authorization"
        )
        if token:
            headers["Authorization"] = token


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    text = headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None


async def connect() -> client.ApiClient:
    """A client by the Pod's service account, or by KUBECONFIG outside a cluster."""
    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        await config.load_kube_config(client_configuration=configuration)
    return client.ApiClient(configuration)
