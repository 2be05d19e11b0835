"""Bring one job closer to what it should be: observe, decide, act, and say so in its status."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

from encoder_core.names import GROUP, VERSION
from encoder_db.store import Store
from encoder_operator.act import Actor, in_thread
from encoder_operator.cache import Cache
from encoder_operator.decide import CancelJob, decide
from encoder_operator.kube import JOBS, Kube, KubeError
from encoder_operator.observe import View, observe
from encoder_operator.seen import parse_job
from encoder_operator.status import build_conditions, build_status, is_changed

log = logging.getLogger("encoder.operator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciler:
    store: Store
    kube: Kube
    cache: Cache
    actor: Actor
    retention: timedelta

    async def __call__(self, name: str) -> float | None:
        """The seconds after which to look again, if any; 0 is at once. Raises to be retried."""
        view = await in_thread(
            lambda: observe(self.store, self.cache, name, retention=self.retention)
        )
        decision = decide(view.observed)
        missed = view.observed.job is None and any(
            isinstance(step, CancelJob) for step in decision.steps
        )
        if missed and await self._exists(name):
            return 0
        for step in decision.steps:
            await self.actor.act(step, view.observed)
        if decision.wake_after_s != 0:
            # With 0 the next round is due at once, and its status would overwrite this one.
            await self._publish(view)
        return decision.wake_after_s

    async def _exists(self, name: str) -> bool:
        """Ask the API server: that a watch does not show a resource proves nothing."""
        try:
            body = await self.kube.get(JOBS, name)
        except KubeError as error:
            if error.not_found:
                return False
            raise
        self.cache.jobs[name] = parse_job(body)
        return True

    async def _publish(self, view: View) -> None:
        job, document = view.observed.job, view.document
        if job is None or job.deleting or document is None:
            return
        pod = view.observed.pods.get(document.attempt)
        conditions = build_conditions(document, pod, waiting_for=view.waiting_for)
        status = build_status(job, document, conditions, pod=pod, now=view.observed.now)
        if not is_changed(job, status):
            return
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "TranscodeJob",
            "metadata": {"name": job.name, "uid": job.uid},
            "status": status,
        }
        try:
            updated = await self.kube.apply_status(JOBS, job.name, body)
        except KubeError as error:
            if error.not_found or error.status == 409:
                return  # gone, or another under its name: its own events come
            raise
        self.cache.jobs[job.name] = parse_job(updated)
