"""The only module that talks to the Kubernetes API. Wraps its errors, spends the write budget."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import aiohttp
from kubernetes.aio import client, config

from encoder_core.errors import EncoderError
from encoder_core.names import GROUP, VERSION
from encoder_core.retry_after import read_retry_after
from encoder_operator.budget import WriteBudget
from encoder_operator.health import Echoes
from encoder_operator.metrics import Metrics
from encoder_operator.slots import Slots

T = TypeVar("T")

REQUEST_TIMEOUT_S: Final = 30.0
FIELD_MANAGER: Final = "encoder-operator"
APPLY_PATCH: Final = "application/apply-patch+yaml"

# Words of Kubernetes 1.34.
POLICY_SAYS_NO: Final = (" denied the request", " denied request: ", ": violates PodSecurity ")
POLICY_IS_BROKEN: Final = " denied request: failed to configure "
BLAMELESS: Final = (
    *(" cannot create resource ", "because it is being terminated"),
    *("not yet ready to handle request", "not yet synced to use for admission"),
    "status unknown for quota: ",
)
TOO_LARGE: Final = ("request is too large", "trying to send message larger than max")
"""Etcd, and what the API server asks it with; both are a 500."""


class KubeError(EncoderError):
    """The API server refused or did not answer. `status` is 0 when it did not answer."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def unreachable(self) -> bool:
        return self.status == 0

    @property
    def not_found(self) -> bool:
        return self.status == 404

    @property
    def exists_already(self) -> bool:
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def over_quota(self) -> bool:
        return self.status == 403 and "exceeded quota:" in self.message

    @property
    def denied(self) -> bool:
        """By a policy that was written to say no. Its status says nothing: policies choose it."""
        if POLICY_IS_BROKEN in self.message:
            return False  # it did not get to judge: what it compares with is not there
        return any(said in self.message for said in POLICY_SAYS_NO)

    @property
    def blameless(self) -> bool:
        """
        Nothing that the object can help: the caller lacks the right (an API server that has just
        started says so of everything, until it has read the roles), the namespace is being deleted,
        or what admission goes by has not been read or counted yet.
        """
        return not self.denied and any(said in self.message for said in BLAMELESS)

    @property
    def forbidden(self) -> bool:
        return self.status == 403

    @property
    def invalid(self) -> bool:
        return self.status in (400, 422)

    @property
    def too_large(self) -> bool:
        return self.status == 413 or any(said in self.message for said in TOO_LARGE)


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

STARTS_OR_STOPS: Final = frozenset(
    [*(("create", kind.plural) for kind in (JOBS, SECRETS, PODS)), ("delete", PODS.plural)]
)
"""Calls that somebody waits for. Others tell of what is, and clear away what was."""


class Kube:
    """A client for one namespace. Every method raises KubeError."""

    def __init__(
        self,
        api: client.ApiClient,
        *,
        namespace: str,
        budget: WriteBudget,
        echoes: Echoes,
        metrics: Metrics,
        in_flight: int,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self.budget = budget
        self._echoes = echoes
        self._metrics = metrics
        # A server that answers slowly is not helped by a thousand questions at once.
        self._in_flight = Slots(in_flight)

    @property
    def namespace(self) -> str:
        return self._namespace

    async def list_all(
        self, kind: Kind, project: Callable[[Mapping[str, Any]], T], *, label: str | None = None
    ) -> list[T]:
        """
        What `project` makes of all objects of a kind. They come without apiVersion and kind.

        Whole objects are held 500 at a time: thousands of them would be most of our memory.
        """
        items: list[T] = []
        query = "?limit=500" + (f"&labelSelector={label}" if label else "")
        more = ""
        while True:
            path = kind.path(self._namespace) + query + more
            page = await self._call("GET", path, of=("list", kind.plural))
            items += map(project, page["items"])
            token = page["metadata"].get("continue")
            if not token:
                return items
            more = f"&continue={token}"

    async def check_served(self, *kinds: Kind) -> None:
        """Raises when the API server does not know one of our own kinds yet."""
        found = await self._call("GET", f"/apis/{GROUP}/{VERSION}", of=("get", "apis"))
        served = {resource["name"] for resource in found["resources"]}
        for kind in kinds:
            if kind.plural not in served:
                raise KubeError(404, "NotFound", f"{kind.plural} are not served")

    async def get(self, kind: Kind, name: str) -> dict[str, Any]:
        return await self._call("GET", kind.path(self._namespace, name), of=("get", kind.plural))

    async def create(self, kind: Kind, body: Mapping[str, Any]) -> dict[str, Any]:
        path = kind.path(self._namespace)
        made = await self._write("POST", path, body, "application/json", of=("create", kind.plural))
        self._echoes.expect(kind.plural, made["metadata"].get("resourceVersion"))
        return made

    async def create_once(self, kind: Kind, body: Mapping[str, Any]) -> None:
        """For Events: there already is as good, and a refusal is no reason to stop anything."""
        try:
            await self.create(kind, body)
        except KubeError as error:
            # A namespace that is being deleted takes no new objects; Events are not evidence.
            if error.status not in (403, 404, 409, 422):
                raise

    async def apply_status(self, kind: Kind, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """
        Set the whole status that we own.

        Server-side apply, since a merge patch would replace the list of conditions as a whole and
        a stale one would not be noticed.
        """
        path = kind.path(self._namespace, name, "status")
        query = f"?fieldManager={FIELD_MANAGER}&force=true"
        of = ("patch", f"{kind.plural}/status")
        written = await self._write("PATCH", path + query, body, APPLY_PATCH, of=of)
        self._echoes.expect(kind.plural, written["metadata"].get("resourceVersion"))
        return written

    async def delete(self, kind: Kind, name: str, *, uid: str | None = None) -> None:
        """Delete an object, if it is still the one with this uid. Gone already is success."""
        body: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            path = kind.path(self._namespace, name)
            of = ("delete", kind.plural)
            await self._write("DELETE", path, body, "application/json", of=of)
        except KubeError as error:
            # 409 here is another uid under the same name: ours is gone.
            if error.status not in (404, 409):
                raise

    async def _write(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any],
        content_type: str,
        *,
        of: tuple[str, str],
    ) -> dict[str, Any]:
        self._metrics.throttled_s.labels("api").inc(await self.budget.take())
        return await self._call(method, path, body, content_type, of=of)

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content_type: str | None = None,
        *,
        of: tuple[str, str],
    ) -> dict[str, Any]:
        began, code = time.monotonic(), 0
        try:
            async with self._in_flight.take(first=of in STARTS_OR_STOPS):
                code, answer, headers = await self._send(method, path, body, content_type)
        finally:
            self._metrics.requests.labels(*of, str(code)).inc()
            self._metrics.request_s.labels(*of).observe(time.monotonic() - began)
        if code >= 400:
            if code == 429:
                self.budget.throttled(read_retry_after(headers.get("Retry-After")))
            raise KubeError(code, answer.get("reason", ""), answer.get("message", "")[:1024])
        return answer

    async def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, content_type: str | None
    ) -> tuple[int, dict[str, Any], Mapping[str, str]]:
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
        try:
            answer = json.loads(raw) if raw else {}
        except ValueError:  # of something between us and the server, such as a proxy
            answer = {"message": raw[:200].decode(errors="replace")}
        return response.status, answer, response.headers

    async def _authenticate(self, headers: dict[str, str]) -> None:
        # Read for each call: a projected token is renewed under our feet.
        token = await self._api.configuration.get_api_key_with_prefix(
            "BearerToken", alias="authorization"
        )
        if token:
            headers["Authorization"] = token


async def connect() -> client.ApiClient:
    """A client by the Pod's service account, or by KUBECONFIG outside a cluster."""
    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        await config.load_kube_config(client_configuration=configuration)
    return client.ApiClient(configuration)
