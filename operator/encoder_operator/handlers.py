"""Every watch of the operator: its table of contents. Handlers remember, and wake a key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import kopf

from encoder_core.names import GROUP, JOB_LABEL, VERSION

if TYPE_CHECKING:
    from encoder_operator.operator import Operator


def register(registry: kopf.OperatorRegistry, operator: Operator) -> None:
    """Only `on.event`: kopf writes nothing to the objects, and keeps no state of its own."""

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.startup(registry=registry)
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.scanning.disabled = True  # no rights on namespaces and CRDs are needed then
        settings.posting.enabled = False
        settings.watching.label_selectors["v1/pods"] = JOB_LABEL
        settings.watching.server_timeout = 300
        settings.watching.reconnect_backoff = 1.0
        settings.networking.request_timeout = 30.0
        # The default pauses up to 21 s: events would come that late after a hiccup.
        settings.networking.error_backoffs = (0.2, 0.5, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2)
        settings.persistence.finalizer = f"{GROUP}/never-used"

    @kopf.on.event(GROUP, VERSION, "transcodejobs", registry=registry)
    async def job_changed(event: kopf.RawEvent, **_: Any) -> None:
        operator.job_changed(event["type"], event["object"])

    @kopf.on.event("", "v1", "pods", labels={JOB_LABEL: kopf.PRESENT}, registry=registry)
    async def pod_changed(event: kopf.RawEvent, **_: Any) -> None:
        operator.pod_changed(event["type"], event["object"])

    @kopf.on.event(GROUP, VERSION, "transcodepools", registry=registry)
    async def pool_changed(event: kopf.RawEvent, **_: Any) -> None:
        operator.pool_changed(event["type"], event["object"])
