"""What the watches showed last, and what a fresh list says that they missed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from encoder_operator.seen import JobSeen, PodSeen, PoolSeen


@dataclass(slots=True)
class Cache:
    """Projections by name. Only what the watch says goes in; deletions come from it or a resync."""

    jobs: dict[str, JobSeen] = field(default_factory=dict)
    pods: dict[str, PodSeen] = field(default_factory=dict)
    pools: dict[str, PoolSeen] = field(default_factory=dict)
    _pods_of: dict[str, set[str]] = field(default_factory=dict)
    _over_quota: dict[str, tuple[datetime, str]] = field(default_factory=dict)

    def pods_in(self, pool: str) -> list[PodSeen]:
        return [pod for pod in self.pods.values() if pod.pool == pool]

    def note_quota(self, pool: str, message: str, until: datetime) -> None:
        """The namespace's quota is used up: asking again before that is of no use."""
        self._over_quota[pool] = (until, message)

    def over_quota(self, pool: str, now: datetime) -> str | None:
        until, message = self._over_quota.get(pool, (now, ""))
        return message if until > now else None

    def pods_of(self, resource: str) -> dict[int, PodSeen]:
        """The Pods of a TranscodeJob, by attempt."""
        names = self._pods_of.get(resource, ())
        return {pod.attempt: pod for pod in (self.pods[name] for name in names)}

    def put_pod(self, pod: PodSeen) -> None:
        self.pods[pod.name] = pod
        self._pods_of.setdefault(pod.resource, set()).add(pod.name)

    def bury_pod(self, pod: PodSeen) -> None:
        """Forget a deleted Pod; not how it had ended, as long as nobody has recorded that."""
        known, job = self.pods.get(pod.name), self.jobs.get(pod.resource)
        if known is not None and known.uid != pod.uid:
            return
        awaited = job is not None and job.uid == pod.owner and not job.done
        if pod.ended and awaited:
            self.put_pod(replace(pod, gone=True))
        else:
            self.drop_pod(pod.name)

    def forget_buried(self, resource: str, *, besides: int | None) -> None:
        """The ends of all attempts but that one are recorded."""
        for attempt, pod in self.pods_of(resource).items():
            if pod.gone and attempt != besides:
                self.drop_pod(pod.name, pod.uid)

    def drop_pod(self, name: str, uid: str | None = None) -> None:
        """Forget a Pod; not one that has taken its name meanwhile."""
        pod = self.pods.get(name)
        if pod is None or (uid is not None and pod.uid != uid):
            return
        del self.pods[name]
        names = self._pods_of[pod.resource]
        names.discard(name)
        if not names:
            del self._pods_of[pod.resource]

    def drop_job(self, name: str, uid: str | None = None) -> None:
        job = self.jobs.get(name)
        if job is not None and (uid is None or job.uid == uid):
            del self.jobs[name]

    def renew_job(self, answer: JobSeen) -> None:
        """What the server answered to a write of ours."""
        if _is_renewed(self.jobs.get(answer.name), answer):
            self.jobs[answer.name] = answer

    def drop_pool(self, name: str, uid: str) -> None:
        """Forget a pool; not one that has taken its name meanwhile, whose watch may tell first."""
        pool = self.pools.get(name)
        if pool is not None and pool.uid == uid:
            del self.pools[name]

    def renew_pool(self, answer: PoolSeen) -> None:
        """What the server answered to a write of ours."""
        if _is_renewed(self.pools.get(answer.name), answer):
            self.pools[answer.name] = answer

    def replace(
        self, *, jobs: Iterable[JobSeen], pods: Iterable[PodSeen], pools: Iterable[PoolSeen]
    ) -> set[str]:
        """
        Take a fresh list as the truth; the TranscodeJobs for which something differed.

        A watch that was interrupted never tells of what was deleted meanwhile: such ghosts are
        found here, and nowhere else.
        """
        new_jobs = {job.name: job for job in jobs}
        new_pods = {pod.name: pod for pod in pods}
        changed = {
            name
            for name in self.jobs.keys() | new_jobs.keys()
            if self.jobs.get(name) != new_jobs.get(name)
        }
        for name in self.pods.keys() | new_pods.keys():
            before, after = self.pods.get(name), new_pods.get(name)
            if before != after:
                changed.update(pod.resource for pod in (before, after) if pod is not None)
        self.jobs = new_jobs
        self.pods = {}
        self._pods_of = {}
        for pod in new_pods.values():
            self.put_pod(pod)
        self.pools = {pool.name: pool for pool in pools}
        return changed


def _is_renewed(known: JobSeen | PoolSeen | None, answer: JobSeen | PoolSeen) -> bool:
    """
    Whether an answer is later than what the watch has brought while it was on its way.

    Nothing would tell again of a deletion, or of a change, that it takes back.
    """
    if known is None or known.uid != answer.uid:
        return False
    now, before = answer.resource_version, known.resource_version
    return not (now.isdigit() and before.isdigit() and int(now) < int(before))
