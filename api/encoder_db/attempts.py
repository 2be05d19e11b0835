"""Begin attempts: a claimed message becomes a place in a pool, and a place becomes a worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Final

from sqlalchemy import Connection, bindparam, insert, select, update

from encoder_core.ids import hash_token, new_token
from encoder_core.retries import RetryLimits
from encoder_core.states import AttemptStatus, JobStatus
from encoder_db.cluster import bind_resource
from encoder_db.dialect import db_now
from encoder_db.endings import end_canceled
from encoder_db.messages import ack, begin_handling, give_back
from encoder_db.outcomes import close_attempt, finish_attempt
from encoder_db.places import Places
from encoder_db.queue import Engine
from encoder_db.reports import apply_report
from encoder_db.rows import (
    AttemptRow,
    Claimed,
    JobRow,
    QueueMessage,
    Refusal,
    Resource,
    lock_current,
    lock_job,
    lock_jobs,
    read_open_attempt,
)
from encoder_db.store import Store, now
from encoder_db.tables import job_attempts, jobs
from encoder_db.takeover import (
    end_lost,
    has_not_begun,
    may_publish_s,
    requeue_and_keep,
)
from encoder_db.transitions import move_job
from encoder_db.work import OpenAttempt, Work, open_attempts, read_work

__all__ = [
    "Claimed",
    "OpenAttempt",
    "Refusal",
    "Resource",
    "Work",
    "apply_report",
    "finish_attempt",
    "mark_starting",
    "open_attempt",
    "open_attempts",
    "open_attempts_of",
    "read_work",
    "withdraw",
]


def open_attempt(
    store: Store,
    message: QueueMessage,
    *,
    executor: Engine,
    worker: str,
    limit: int | None = None,
    limits: RetryLimits | None = None,
) -> Claimed | Refusal:
    """
    Take a place in the pool for a claimed message: the row of the attempt is the place.

    `limit` is how many attempts this worker may have open. May run twice for one lease: the
    second run takes up the same attempt under a fresh token. An attempt that an earlier lease
    left open is taken up when nothing can have begun, and otherwise ends as lost, once its
    worker may publish no more. With a Refusal the message has been dealt with.
    """

    def work(tx: Connection) -> Claimed | Refusal:
        places = Places(tx, executor, worker, limit=limit)
        return _open_all(tx, [message], places, limits or RetryLimits())[0]

    return store.run(work)


def open_attempts_of(
    store: Store,
    messages: Sequence[QueueMessage],
    *,
    executor: Engine,
    worker: str,
    total: int | None = None,
    limits: RetryLimits | None = None,
) -> list[Claimed | Refusal]:
    """
    The same for a batch in one transaction: an answer to each message, in their order.

    `total` is how many attempts may be open on this engine, in all pools together; the rows of
    all its pools are locked for it, so that it holds with any number of claimers.
    """

    def work(tx: Connection) -> list[Claimed | Refusal]:
        places = Places(tx, executor, worker, total=total)
        return _open_all(tx, messages, places, limits or RetryLimits())

    return store.run(work)


def _open_all(
    tx: Connection, messages: Sequence[QueueMessage], places: Places, limits: RetryLimits
) -> list[Claimed | Refusal]:
    """In as many statements as one takes, but for those whose earlier attempt needs a look."""
    places.lock(sorted({message.pool for message in messages}))
    found = lock_jobs(tx, [message.job_id for message in messages])
    waiting = [one for one in messages if one.job_id in found and not found[one.job_id].is_final]
    held = begin_handling(tx, waiting)
    answers: dict[int, Claimed | Refusal] = {}
    granted: list[tuple[JobRow, QueueMessage]] = []
    for message in messages:
        answer = _admit(tx, found.get(message.job_id), message, message.id in held, places, limits)
        if isinstance(answer, JobRow):
            granted.append((answer, message))
        else:
            answers[message.id] = answer
    for claimed in _insert_attempts(tx, granted, places):
        answers[claimed.message.id] = claimed
    return [answers[message.id] for message in messages]


def _admit(
    tx: Connection,
    job: JobRow | None,
    message: QueueMessage,
    is_held: bool,
    places: Places,
    limits: RetryLimits,
) -> JobRow | Claimed | Refusal:
    """The job, when it was given a place: its attempt is still to be written."""
    if job is None or job.is_final:
        ack(tx, message)
        return Refusal("job_final")
    if not is_held:
        return Refusal("lease_lost")
    earlier = read_open_attempt(tx, job)
    if earlier is not None:
        if _is_same_lease(earlier, message) or has_not_begun(earlier, job):
            return _take_up(tx, job, earlier, message, places.worker)
        wait_s = may_publish_s(tx, earlier, places.worker)
        if wait_s > 0:
            give_back(tx, message, delay_s=wait_s)
            return Refusal("publish_lease")
        job = end_lost(tx, job, earlier, limits)
        if job.is_final:
            return Refusal("attempts_exhausted" if job.status is JobStatus.FAILED else "job_final")
    elif job.status is not JobStatus.QUEUED:
        # Active without an attempt: a step was lost. It starts over, or ends as asked.
        if job.status is JobStatus.CANCELING:
            end_canceled(tx, job)
            return Refusal("job_final")
        job = requeue_and_keep(tx, job)
    refused = places.take(job)
    if refused is not None:
        give_back(tx, message, delay_s=refused.delay_s)
        return Refusal(refused.reason)
    return job


def _is_same_lease(attempt: AttemptRow, message: QueueMessage) -> bool:
    return attempt.message_id == message.id and attempt.lease_seq == message.lease_seq


def _take_up(
    tx: Connection, job: JobRow, attempt: AttemptRow, message: QueueMessage, worker: str
) -> Claimed:
    token = new_token()
    tx.execute(
        update(job_attempts)
        .where(job_attempts.c.job_id == attempt.job_id, job_attempts.c.number == attempt.number)
        .values(
            token_hash=hash_token(token),
            worker=worker,
            message_id=message.id,
            lease_seq=message.lease_seq,
        )
    )
    return Claimed(message=message, job=job, attempt=attempt.number, token=token)


def _insert_attempts(
    tx: Connection, granted: Sequence[tuple[JobRow, QueueMessage]], places: Places
) -> list[Claimed]:
    if not granted:
        return []
    # Its earlier attempt may have ended a moment ago, in this transaction: what follows is later.
    has_earlier = any(job.attempt for job, _ in granted)
    moment = now(tx) if has_earlier else places.moment
    new = [
        Claimed(
            message=message,
            job=replace(job, attempt=job.attempt + 1),
            attempt=job.attempt + 1,
            token=new_token(),
        )
        for job, message in granted
    ]
    tx.execute(
        insert(job_attempts),
        [
            {
                "job_id": one.job.id,
                "number": one.attempt,
                "status": AttemptStatus.CREATED.value,
                "executor": places.executor,
                "worker": places.worker,
                "pool": one.job.pool,
                "owner": one.job.owner,
                "message_id": one.message.id,
                "lease_seq": one.message.lease_seq,
                "token_hash": hash_token(one.token),
                "created_at": moment,
            }
            for one in new
        ],
    )
    tx.execute(_COUNT_ATTEMPT, {"job_ids": [one.job.id for one in new]})
    return new


_COUNT_ATTEMPT: Final = (
    update(jobs)
    .where(jobs.c.id.in_(bindparam("job_ids", expanding=True)))
    .values(attempt=jobs.c.attempt + 1, updated_at=db_now())
)


def mark_starting(store: Store, claimed: Claimed, *, resource: Resource | None = None) -> bool:
    """
    The executor is on its way: the job is `starting`.

    On Kubernetes the message is acknowledged with it; the local engine keeps its lease until the
    attempt ends. False: the job was canceled or handed to another meanwhile, so what was started
    must be stopped. May run twice. `resource` is what stands for the job in the cluster; it is
    noted also when the job was canceled, so that it can be stopped.
    """

    def work(tx: Connection) -> bool:
        current = lock_current(tx, claimed.job.id, claimed.attempt)
        if current is None or current.job.status is not JobStatus.QUEUED:
            if not _may_stand(tx, claimed.job.id, resource):
                return False
        elif resource is not None and current.resource_uid not in (None, resource.uid):
            return False
        if current is None or current.job.status is JobStatus.CANCELING:
            return False
        if current.token_hash != hash_token(claimed.token):
            return False
        is_queued = current.job.status is JobStatus.QUEUED
        if current.executor == "kubernetes" and not ack(tx, claimed.message) and is_queued:
            return False  # another claimer has the message, and will take the attempt up
        if is_queued:
            move_job(tx, current.job, JobStatus.STARTING, values=_columns_of(resource))
        return True

    return store.run(work)


def _may_stand(tx: Connection, job_id: int, resource: Resource | None) -> bool:
    return resource is None or bind_resource(tx, job_id, name=resource.name, uid=resource.uid)


def _columns_of(resource: Resource | None) -> Mapping[str, str]:
    if resource is None:
        return {}
    return {"resource_name": resource.name, "resource_uid": resource.uid}


def withdraw(store: Store, claimed: Claimed, *, delay_s: float) -> bool:
    """
    Give the place back: nothing was begun, and nobody is to blame. The job is due after the delay.

    Without this, an attempt that waits for something would hold a place that its own message
    needs to be claimed again. The delay doubles with each that is withdrawn in a row, up to
    LONGEST_WAIT_S: what is in the way may stay for days, and each try uses up a number.
    False: it is another's by now.
    """

    def work(tx: Connection) -> bool:
        job = lock_job(tx, claimed.job.id)
        attempt = None if job is None else read_open_attempt(tx, job)
        if job is None or attempt is None or attempt.number != claimed.attempt:
            return False
        if not has_not_begun(attempt, job) or attempt.token_hash != hash_token(claimed.token):
            return False
        close_attempt(tx, attempt, AttemptStatus.LOST)
        grown_s = delay_s * 2 ** _count_withdrawn_before(tx, job)
        return give_back(tx, claimed.message, delay_s=min(grown_s, LONGEST_WAIT_S))

    return store.run(work)


LONGEST_WAIT_S: Final = 300.0


def _count_withdrawn_before(tx: Connection, job: JobRow) -> int:
    """How many in a row right before the latest; no more than matter, and none forgiven."""
    before = (
        select(job_attempts.c.status, job_attempts.c.failure_code)
        .where(
            job_attempts.c.job_id == job.id,
            job_attempts.c.number > job.attempts_forgiven,
            job_attempts.c.number < job.attempt,
        )
        .order_by(job_attempts.c.number.desc())
        .limit(10)
    )
    withdrawn = (AttemptStatus.LOST, None)
    rows = takewhile(lambda row: tuple(row) == withdrawn, tx.execute(before))
    return len(list(rows))
