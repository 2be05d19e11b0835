"""Bring one job closer to what it should be: observe, decide, act, and say so in its status."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy.exc import DBAPIError

from encoder_core.documents import JobDocument
from encoder_core.failures import MESSAGE_CHARACTERS
from encoder_core.names import GROUP, VERSION
from encoder_core.states import FINAL_JOB, JobStatus
from encoder_db import cluster
from encoder_db.store import Store
from encoder_operator.act import Actor, Refused, in_thread, note_place
from encoder_operator.cache import Cache
from encoder_operator.decide import (
    Adopt,
    CancelJob,
    StartPod,
    why_not_started,
)
from encoder_operator.events import build_event, notes_of_job
from encoder_operator.exits import Stuck, classify_waiting
from encoder_operator.kube import EVENTS, JOBS, Kube, KubeError
from encoder_operator.observe import View, observe
from encoder_operator.seen import JobSeen, PodSeen, parse_job
from encoder_operator.status import (
    build_conditions,
    build_refused_status,
    build_status,
    conditions_of_refused,
    is_changed,
    reason_of,
    status_without_store,
)

log = logging.getLogger("encoder.operator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciler:
    store: Store
    kube: Kube
    cache: Cache
    actor: Actor

    async def __call__(self, name: str) -> float | None:
        """The seconds after which to look again, if any; 0 is at once. Raises to be retried."""
        try:
            view = await in_thread(
                lambda: observe(self.store, self.cache, name, defaults=self.actor.defaults)
            )
        except DBAPIError:
            await self._say_store_is_away(name)
            raise
        decision, job, row = view.decision, view.observed.job, view.observed.row
        self.cache.forget_buried(name, besides=row.attempt if row and row.attempt_open else None)
        missed = row is not None and (job is None or job.uid != row.resource_uid)
        if missed and any(isinstance(step, CancelJob) for step in decision.steps):
            assert row is not None
            if await self._exists(name, row.resource_uid):
                return 0
        refused = None
        try:
            for step in decision.steps:
                refused = await self.actor.act(step, view.observed) or refused
        except cluster.BegunByAnother:
            return cluster.BEGUN_S  # its Pod wakes us; if it crashed, we take over then
        if any(isinstance(step, StartPod) for step in decision.steps):
            return 0  # what is shown first has the Pod in it
        if not decision.is_shown:
            return decision.wake_after_s
        if refused is None and any(isinstance(step, Adopt) for step in decision.steps):
            return 0  # it is a job now
        written = await (
            self._publish(view) if refused is None else self._publish_refused(view, refused)
        )
        if written is not None and job is not None:
            # The watch brings our own write as nothing new: what else is in it is seen now.
            ended = refused is None and row is not None and row.status in FINAL_JOB
            if ended or written.generation != job.generation:
                return 0
        return decision.wake_after_s

    async def _exists(self, name: str, uid: str | None) -> bool:
        """Ask the API server: that a watch does not show a resource proves nothing."""
        try:
            body = await self.kube.get(JOBS, name)
        except KubeError as error:
            if error.not_found:
                return False
            raise
        self.cache.jobs[name] = parse_job(body)
        return uid is None or body["metadata"]["uid"] == uid

    async def _say_store_is_away(self, name: str) -> None:
        """
        Only to who waits for something: a job that ended is told of no outage.

        One that was refused for good has its refusal there and nowhere else. Without it, the job
        would be adopted once the database is back.
        """
        job = self.cache.jobs.get(name)
        if job is None or job.deleting or job.done or job.over:
            return
        now = datetime.now(UTC)
        await self._apply(job, status_without_store(job, now=now), None, now=now)

    async def _publish(self, view: View) -> JobSeen | None:
        """What the resource is now, if its status had to be written."""
        job, document, seen = view.observed.job, view.document, view.observed
        if job is None or job.deleting or document is None:
            return None
        if seen.row is not None and seen.row.resource_uid != job.uid:
            return None  # not the resource of this job: this must not look like its status
        pod = seen.pods.get(document.attempt)
        stuck = None if pod is None else classify_waiting(pod, seen.policy)
        if stuck is None and pod is not None and is_late(pod, seen.now):
            stuck = why_not_started(pod, seen.policy, job)
        await self._note_waiting(document, stuck)
        await self._note_place(document, pod)
        conditions = build_conditions(document, pod, stuck)
        status = build_status(job, document, conditions, pod=pod, now=seen.now)
        return await self._apply(job, status, document, now=seen.now)

    async def _publish_refused(self, view: View, refused: Refused) -> JobSeen | None:
        job = view.observed.job
        if job is None or job.deleting:
            return None
        conditions = conditions_of_refused(refused.reason, refused.message, final=refused.final)
        now = view.observed.now
        return await self._apply(job, build_refused_status(job, conditions, now=now), None, now=now)

    async def _note_waiting(self, document: JobDocument, stuck: Stuck | None) -> None:
        """The API says the same as the condition: noted when it changed, and only then."""
        if document.status is not JobStatus.STARTING:
            return
        reason = None if stuck is None else reason_of(stuck.code)
        message = "" if stuck is None else stuck.message[:MESSAGE_CHARACTERS]  # as it is kept
        known = document.waiting
        if (known.reason if known else None) == reason and (not known or known.message == message):
            return
        await in_thread(
            lambda: self.store.run(
                lambda tx: cluster.note_waiting(tx, document.id, reason=reason, message=message)
            )
        )

    async def _note_place(self, document: JobDocument, pod: PodSeen | None) -> None:
        """Once its container runs; how it ended says the same again."""
        if pod is None or not pod.running:
            return
        known = any(each.node for each in document.attempts if each.number == pod.attempt)
        if known:
            return
        await in_thread(lambda: note_place(self.store, document.id, pod))

    async def _apply(
        self, job: JobSeen, status: dict[str, Any], document: JobDocument | None, *, now: datetime
    ) -> JobSeen | None:
        """
        What the resource is now, if it had to be written.

        Events first: what is told twice is one, and what the status says is never told again.
        """
        if not is_changed(job, status):
            return None
        for note in notes_of_job(job, status, document):
            event = build_event(
                note,
                kind="TranscodeJob",
                name=job.name,
                uid=job.uid,
                namespace=self.kube.namespace,
                now=now,
            )
            await self.kube.create_once(EVENTS, event)
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
                return None  # gone, or another under its name: its own events come
            raise
        written = parse_job(updated)
        self.cache.renew_job(written)
        return written


LATE_S: Final = 20.0  # until then nobody asks why a Pod does not run yet


def is_late(pod: PodSeen, now: datetime) -> bool:
    if pod.ended or pod.running or pod.created_at is None:
        return False
    return (now - pod.created_at).total_seconds() > LATE_S
