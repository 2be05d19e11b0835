"""
What holds whatever is done to operators, watches and answers.

While it happens somebody shows `Pods` all Pods that there are, after each change; at the end
`check` compares that with the record. Who stands in for a worker marks its results, so that it is
seen whose they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import select

from encoder_core.names import ATTEMPT_LABEL, JOB_LABEL
from encoder_core.states import FINAL_JOB, OPEN_ATTEMPT, AttemptStatus, JobStatus
from encoder_db.fsck import fsck
from encoder_db.store import Store
from encoder_db.tables import job_attempts, job_events, job_outputs, jobs

ENDS = frozenset(f"job.{status}" for status in FINAL_JOB)


def mark(attempt: int) -> str:
    """What the worker of that attempt says the checksum of each of its outputs is."""
    return f"a{attempt}"


class Pods:
    """Every worker Pod that there ever was, by the uid of its TranscodeJob and by attempt."""

    def __init__(self) -> None:
        self.made: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        self.at_once: set[str] = set()
        """The Pods of one job that were alive at the same time."""

    def look(self, pods: Iterable[Mapping[str, Any]]) -> None:
        alive: dict[str, list[str]] = defaultdict(list)
        for pod in pods:
            metadata = pod["metadata"]
            labels = metadata.get("labels") or {}
            if JOB_LABEL not in labels:
                continue
            (owner,) = metadata["ownerReferences"]
            self.made[owner["uid"]][int(labels[ATTEMPT_LABEL])].add(metadata["uid"])
            if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
                alive[owner["uid"]].append(f"{metadata['name']} ({metadata['uid']})")
        self.at_once |= {" and ".join(sorted(names)) for names in alive.values() if len(names) > 1}


def check(store: Store, pods: Pods, *, since: int = 0) -> None:
    """
    All jobs are over, once, by one Pod at a time, and hold nothing any more.

    `since`: of the jobs after this one. Not for jobs that somebody had tried again by request.
    """
    problems = [
        *(f"of job {each.job_id} it is not so: {each.says}" for each in fsck(store).findings),
        *(f"two Pods of one job were alive at once: {both}" for both in sorted(pods.at_once)),
        *_problems(store, pods, since),
    ]
    assert not problems, "\n".join(problems)


def last_job(store: Store) -> int:
    with store.read() as tx:
        return tx.execute(select(jobs.c.id).order_by(jobs.c.id.desc()).limit(1)).scalar() or 0


def _problems(store: Store, pods: Pods, since: int) -> list[str]:
    with store.read() as tx:
        rows = tx.execute(select(jobs).where(jobs.c.id > since)).all()
        attempts = tx.execute(select(job_attempts).where(job_attempts.c.job_id > since)).all()
        outputs = tx.execute(select(job_outputs).where(job_outputs.c.job_id > since)).all()
        events = tx.execute(select(job_events).where(job_events.c.job_id > since)).all()
    problems = []
    for job in rows:
        last = [job.attempt] if job.status == JobStatus.COMPLETED else []
        tried = {a.number: a.status for a in attempts if a.job_id == job.id}
        told = [e.type for e in events if e.job_id == job.id]
        results = {o.checksum for o in outputs if o.job_id == job.id} - {None}
        made = pods.made.get(job.resource_uid, {})
        rules = {
            "it is over": job.status in FINAL_JOB,
            "that is told once": [t for t in told if t in ENDS] == [f"job.{job.status}"],
            "it holds no place": not OPEN_ATTEMPT.intersection(tried.values()),
            "its last attempt succeeded, and no other": last
            == [number for number, status in tried.items() if status == AttemptStatus.SUCCEEDED],
            "its results are of its last attempt": results == {mark(number) for number in last},
            "an attempt has one Pod": all(len(uids) == 1 for uids in made.values()),
            "a Pod has an attempt": made.keys() <= tried.keys(),
            "it succeeded with a Pod": made.keys() >= set(last),
        }
        problems += [
            f"of job {job.id} ({job.status}) it is not so that {rule}: "
            f"attempts {tried}, Pods {dict(made)}, results {results}, told {told}"
            for rule, holds in rules.items()
            if not holds
        ]
    return problems
