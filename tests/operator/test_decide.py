"""
What a job needs next, by what is seen of it.

Aspects: no row, no resource, final, canceling, starting, running, ended, stuck, and that every
observation has a decision.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder_core.specs import Priority
from encoder_core.states import FINAL_JOB, JobStatus
from encoder_operator.decide import (
    Adopt,
    Bump,
    CancelJob,
    Decision,
    DeletePod,
    DeleteResource,
    DeleteSecret,
    Disown,
    FinishAttempt,
    Observed,
    Refuse,
    RowSeen,
    StartPod,
    Step,
    decide,
)
from encoder_operator.exits import Ended
from encoder_operator.policy import PoolPolicy
from encoder_operator.seen import JobSeen, PodPhase
from tests.operator.builders import NOW, a_job, a_pod, a_row, an_ended_pod, observed

RECORDED = {"ResultRecorded": {"status": "True"}}
DONE = a_row(JobStatus.COMPLETED, attempt_open=False, finished_at=NOW)
STOPPING = a_row(JobStatus.CANCELING)
WAITING = a_row(JobStatus.QUEUED, attempt=0, attempt_open=False, pod_created=False)
GONE = Ended("pod_deleted", "The Pod is gone, and nobody saw why.")
PULLING = a_pod(phase=PodPhase.PENDING, running=False, waiting="ImagePullBackOff")
STILL_ENDS = "An earlier job of this name still ends."
KILL = DeletePod(a_pod().name, a_pod().uid)
FORGET = DeleteSecret(1)


@pytest.mark.parametrize(
    ("seen", "steps"),
    [
        pytest.param(
            observed(row=None, job=a_job(name="mine", job_uid=None), pods={}),
            [Adopt()],
            id="a resource that somebody applied is adopted",
        ),
        pytest.param(
            observed(
                row=None, job=a_job(name="mine", job_uid=None, status={"jobID": 7}), pods={}
            ),
            [DeleteResource("job-1")],
            id="one that was recorded before is not adopted again: its job was deleted",
        ),
        pytest.param(
            observed(row=None, pods={}),
            [DeleteResource("job-1")],
            id="ours without a row: the job was deleted, so its resource goes",
        ),
        pytest.param(
            observed(row=None, name="mine", job=a_job(name="mine"), pods={}),
            [Disown("No job has the UUID in spec.jobUID.")],
            id="a forged jobUID is disowned",
        ),
        pytest.param(
            observed(name="mine", job=a_job(name="mine", uid="another")),
            [Disown("The job in spec.jobUID belongs to another resource.")],
            id="a second resource for the same job is disowned",
        ),
        pytest.param(
            observed(job=a_job(uid="another")),
            [CancelJob("The resource was deleted")],
            id="another resource of the same name: the job's own was deleted",
        ),
        pytest.param(
            observed(job=a_job(uid="another"), row=STOPPING),
            [KILL, Refuse("PreviousEnding", STILL_ENDS, final=False)],
            id="which waits until the job has ended",
        ),
        pytest.param(
            observed(job=a_job(uid="another"), row=DONE),
            [Disown("The job in spec.jobUID belongs to another resource.")],
            id="a second resource for a job that is over is disowned",
        ),
        pytest.param(observed(row=WAITING, pods={}), [], id="a waiting job gets no Pod"),
        pytest.param(
            observed(row=WAITING, job=None, pods={}),
            [CancelJob("The resource was deleted")],
            id="deleting an applied resource cancels its waiting job",
        ),
        pytest.param(
            observed(row=a_row(JobStatus.STARTING, pod_created=False), pods={}),
            [StartPod(1)],
            id="an admitted job gets its Pod",
        ),
        pytest.param(observed(), [], id="a running Pod is left alone"),
        pytest.param(
            observed(pods={1: an_ended_pod(0)}),
            [FinishAttempt(1, Ended(None, None, 0))],
            id="a Pod that succeeded ends its attempt",
        ),
        pytest.param(
            observed(pods={}),
            [FinishAttempt(1, GONE, lost=True, gone=True)],
            id="a Pod that is gone ends its attempt as lost",
        ),
        pytest.param(
            observed(row=a_row(attempt=2, pod_created=False), pods={1: an_ended_pod(1)}),
            [StartPod(2)],
            id="the Pod of an earlier attempt counts for nothing",
        ),
        pytest.param(
            observed(job=a_job(cancel=True)),
            [CancelJob("spec.desiredState is Cancel")],
            id="desiredState Cancel cancels",
        ),
        pytest.param(
            observed(job=None),
            [CancelJob("The resource was deleted")],
            id="deleting the resource cancels its job",
        ),
        pytest.param(observed(row=STOPPING), [KILL], id="canceling stops the Pod"),
        pytest.param(
            observed(row=STOPPING, pods={1: a_pod(deleting=True)}),
            [],
            id="a Pod that is being deleted is waited for",
        ),
        pytest.param(
            observed(row=STOPPING, pods={}),
            [FinishAttempt(1, Ended(None), lost=True, gone=True)],
            id="canceled once its Pod is gone",
        ),
        pytest.param(
            observed(row=STOPPING, job=None, pods={}),
            [FinishAttempt(1, Ended(None), lost=True, gone=True)],
            id="canceled too when the resource is gone",
        ),
        pytest.param(
            observed(row=DONE), [KILL], id="a final job keeps no Pod running"
        ),
        pytest.param(
            observed(row=DONE, pods={}, now=NOW + timedelta(days=1)),
            [],
            id="evidence stays until the record is known to be final",
        ),
        pytest.param(
            observed(row=DONE, job=a_job(conditions=RECORDED), pods={1: an_ended_pod(0)}),
            [],
            id="a finished resource stays for its retention, and so do its Pods",
        ),
        pytest.param(
            observed(row=DONE, job=a_job(conditions=RECORDED), pods={}),
            [],
            id="also when Kubernetes has cleared its Pods away",
        ),
        pytest.param(
            observed(
                row=DONE, job=a_job(conditions=RECORDED), pods={}, now=NOW + timedelta(hours=1)
            ),
            [DeleteResource("job-1")],
            id="then it goes",
        ),
        pytest.param(
            observed(pods={1: PULLING}), [], id="a failing pull has ten minutes"
        ),
        pytest.param(
            observed(pods={1: PULLING}, now=NOW + timedelta(minutes=11)),
            [KILL, FinishAttempt(1, Ended("image_unavailable", "ImagePullBackOff")), FORGET],
            id="after them it ends the attempt",
        ),
    ],
)  # fmt: skip
def test_decide(seen: Observed, steps: list[Step]) -> None:
    assert list(decide(seen).steps) == steps


def test_a_failing_pull_is_looked_at_when_its_grace_ends() -> None:
    assert decide(observed(pods={1: PULLING})) == Decision(wake_after_s=600)


def test_a_finished_resource_is_looked_at_when_its_retention_ends() -> None:
    seen = observed(row=DONE, job=a_job(conditions=RECORDED), pods={})
    assert decide(seen) == Decision(wake_after_s=3600)


# --- What nobody ends, and what must not wait for ever -----------------------------------------

STARTING = a_row(JobStatus.STARTING)
LEFT = a_pod(deleting=True, delete_at=NOW)
ORPHAN = a_pod(deleting=True, delete_at=NOW, disruption="DeletionByTaintManager")
PENDING = a_pod(phase=PodPhase.PENDING, running=False)
NO_ROOM = "0/3 nodes are available: 3 Insufficient cpu."
HOMELESS = a_pod(
    phase=PodPhase.PENDING, running=False, scheduled=False, node=None, unschedulable=NO_ROOM
)
LEASED = a_row(publish_until=NOW + timedelta(seconds=100))
COLLECTED = an_ended_pod(None, disruption="DeletionByPodGC")
GONE_NODE = Ended("node_lost", "Its node does not end the Pod; most likely it is lost.")


def after(seconds: float, **changes: Any) -> Observed:
    return observed(now=NOW + timedelta(seconds=seconds), **changes)


@pytest.mark.parametrize(
    ("seen", "want"),
    [
        pytest.param(
            after(0, pods={1: LEFT}), Decision(wake_after_s=30), id="a Pod has its grace to end"
        ),
        pytest.param(
            after(30, pods={1: LEFT}),
            Decision([FinishAttempt(1, GONE_NODE, lost=True)], 0),
            id="one that does not end is on a lost node",
        ),
        pytest.param(
            after(30, pods={1: LEFT}, row=a_row(publish_until=NOW + timedelta(seconds=100))),
            Decision(wake_after_s=100),
            id="its worker may still publish: the next attempt must wait for its lease",
        ),
        pytest.param(
            after(130, pods={1: LEFT}, row=a_row(publish_until=NOW + timedelta(seconds=100))),
            Decision([FinishAttempt(1, GONE_NODE, lost=True)], 0),
            id="until it has lapsed",
        ),
        pytest.param(
            after(
                30,
                pods={1: LEFT},
                row=a_row(publish_until=NOW + timedelta(seconds=100), reported_end=True),
            ),
            Decision([FinishAttempt(1, GONE_NODE, lost=True)], 0),
            id="or that worker has said its last word",
        ),
        pytest.param(
            after(-60, pods={1: ORPHAN}, row=a_row(reported_end=True)),
            Decision([FinishAttempt(1, Ended(None))], 0),
            id="whose last word counts at once where no kubelet will ever tell its exit code",
        ),
        pytest.param(
            after(-60, pods={1: ORPHAN}, row=a_row()),
            Decision(wake_after_s=90),
            id="without a last word it has its grace there, too",
        ),
        pytest.param(
            after(0, pods={}, row=LEASED),
            Decision(wake_after_s=130),
            id="a Pod that was deleted by force may go on working on a node that is cut off",
        ),
        pytest.param(
            after(130, pods={}, row=LEASED),
            Decision([FinishAttempt(1, GONE, lost=True, gone=True)], 0),
            id="until it may not publish any more",
        ),
        pytest.param(
            after(0, pods={}, row=a_row(JobStatus.CANCELING, publish_until=LEASED.publish_until)),
            Decision([FinishAttempt(1, Ended(None), lost=True, gone=True)], 0),
            id="nothing follows a canceled attempt, so nothing waits for it",
        ),
        pytest.param(
            after(0, pods={1: COLLECTED}, row=LEASED),
            Decision(wake_after_s=130),
            id="a Pod that a controller declared dead proves no more",
        ),
        pytest.param(
            after(130, pods={1: COLLECTED}, row=LEASED),
            Decision([FinishAttempt(1, Ended("node_lost"))], 0),
            id="until then",
        ),
        pytest.param(
            after(0, pods={1: an_ended_pod(137)}, row=LEASED),
            Decision([FinishAttempt(1, Ended("worker_failed", None, 137))], 0),
            id="one whose exit code is known has ended",
        ),
        pytest.param(
            after(30, pods={1: LEFT}, row=STOPPING),
            Decision([FinishAttempt(1, Ended(None, GONE_NODE.message), lost=True)], 0),
            id="a canceled job does not wait for a lost node either",
        ),
        pytest.param(
            after(600, pods={1: PENDING}, row=STARTING),
            Decision(
                [
                    KILL,
                    FinishAttempt(1, Ended("pod_not_started", "The container is not made yet.")),
                    FORGET,
                ],
                0,
            ),
            id="a Pod that does not start, and nobody knows why",
        ),
        pytest.param(
            after(599, pods={1: HOMELESS}, row=STARTING),
            Decision(wake_after_s=1),
            id="a Pod that no node takes has its start deadline",
        ),
        pytest.param(
            after(600, pods={1: HOMELESS}, row=STARTING),
            Decision([KILL, FinishAttempt(1, Ended("pod_unschedulable", NO_ROOM)), FORGET], 0),
            id="and then makes room in the queue",
        ),
        pytest.param(
            after(
                20,
                pods={1: PENDING},
                row=STARTING,
                job=a_job(
                    job_uid=None,
                    spec={
                        "startDeadlineSeconds": 20,
                        "credentialsSecretRef": {"name": "encoder-creds-x"},
                    },
                ),
            ),
            Decision(
                [
                    KILL,
                    FinishAttempt(
                        1,
                        Ended(
                            "credentials_missing",
                            "The Pod waits for its volumes. Is there a Secret encoder-creds-x in "
                            "this namespace?",
                        ),
                    ),
                    FORGET,
                ],
                0,
            ),
            id="a Secret that is not there ends the job at its own start deadline",
        ),
        pytest.param(
            after(1799, row=STARTING), Decision(), id="a running worker may be silent for long"
        ),
        pytest.param(
            after(1800, row=STARTING),
            Decision(
                [
                    KILL,
                    FinishAttempt(
                        1, Ended("worker_stalled", "The Pod runs and has said nothing for 1800 s.")
                    ),
                ],
                0,
            ),
            id="but not for ever",
        ),
    ],
)
def test_nothing_waits_for_ever(seen: Observed, want: Decision) -> None:
    decided = decide(seen)
    assert (list(decided.steps), decided.wake_after_s) == (list(want.steps), want.wake_after_s)


# --- Hold and Drain ---------------------------------------------------------------------------

DRAIN = PoolPolicy(name="hd", stop_policy="Drain")
HOLD = PoolPolicy(name="hd", stop_policy="Hold")
DRAINED = Ended("pool_drained", "Pool hd is drained: it goes back to the queue.")
NO_POD_YET = a_row(JobStatus.STARTING, pod_created=False)


@pytest.mark.parametrize(
    ("seen", "steps"),
    [
        pytest.param(
            observed(policy=DRAIN, row=NO_POD_YET, pods={}),
            [FinishAttempt(1, DRAINED)],
            id="drain takes the place back before there is a Pod",
        ),
        pytest.param(
            observed(policy=DRAIN, row=STARTING, pods={1: PENDING}),
            [KILL, FinishAttempt(1, DRAINED), FORGET],
            id="drain ends a Pod that has not begun",
        ),
        pytest.param(observed(policy=DRAIN), [], id="drain lets run what runs"),
        pytest.param(observed(policy=HOLD, row=STARTING, pods={1: PENDING}), [], id="hold waits"),
        pytest.param(
            observed(policy=HOLD, row=NO_POD_YET, pods={}),
            [StartPod(1)],
            id="hold starts what holds",
        ),
    ],
)
def test_stopping_a_pool(seen: Observed, steps: list[Step]) -> None:
    assert list(decide(seen).steps) == steps


# --- A resource that stands for no job ---------------------------------------------------------

UNBOUND = a_row(JobStatus.QUEUED, attempt=0, attempt_open=False, resource_uid=None)
OLD = NOW - timedelta(hours=1)


@pytest.mark.parametrize(
    ("job", "steps"),
    [
        pytest.param(a_job(created_at=NOW), [], id="just made: the dispatcher is about to note it"),
        pytest.param(
            a_job(created_at=NOW, cancel=True), [], id="it cannot cancel a job that is not its own"
        ),
        pytest.param(
            a_job(created_at=NOW, deleting=True), [], id="nor does deleting it cancel that job"
        ),
        pytest.param(
            a_job(created_at=OLD, cancel=True),
            [Disown("The job in spec.jobUID is not admitted; its resource is not yours.")],
            id="and later it is told so",
        ),
        pytest.param(
            a_job(created_at=OLD, conditions=RECORDED),
            [DeleteResource("job-1")],
            id="the one of an earlier run makes room",
        ),
    ],
)
def test_a_forged_resource_decides_nothing(job: JobSeen, steps: list[Step]) -> None:
    assert list(decide(observed(row=UNBOUND, job=job, pods={})).steps) == steps


@pytest.mark.parametrize(
    ("job", "steps"),
    [
        pytest.param(
            a_job(name="mine", job_uid=None, conditions={"Succeeded": {"status": "False"}}),
            [],
            id="one that was refused for good is left alone",
        ),
        pytest.param(
            a_job(name="mine", job_uid=None, conditions={"Succeeded": {"status": "Unknown"}}),
            [Adopt()],
            id="one whose pool did not exist is tried again",
        ),
        pytest.param(
            a_job(name="mine", job_uid=None, cancel=True),
            [Refuse("Canceled", "Canceled before it was admitted")],
            id="one that was applied canceled never becomes a job",
        ),
    ],
)
def test_a_resource_without_a_job(job: JobSeen, steps: list[Step]) -> None:
    assert list(decide(observed(row=None, name="mine", job=job, pods={})).steps) == steps


# --- Another priority ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "row", "steps"),
    [
        pytest.param(a_job(priority="high", generation=2), WAITING, [Bump(Priority.HIGH)],
                     id="of a job that waits moves it forward"),
        pytest.param(a_job(priority="high", generation=2, observed=2), WAITING, [],
                     id="that was seen before does not undo what the API did since"),
        pytest.param(a_job(priority="high", generation=1, observed=0), WAITING, [],
                     id="that it was applied with is no change"),
        pytest.param(a_job(priority="normal", generation=2), WAITING, [],
                     id="is none when something else was changed"),
        pytest.param(a_job(priority="urgent", generation=2), WAITING, [],
                     id="that does not exist is none"),
        pytest.param(a_job(priority="high", generation=2), a_row(), [],
                     id="comes too late for a job that runs"),
        pytest.param(a_job(priority="high", generation=2, cancel=True), WAITING,
                     [CancelJob("spec.desiredState is Cancel")],
                     id="does not matter to a job that is canceled"),
    ],
)  # fmt: skip
def test_a_priority(job: JobSeen, row: RowSeen, steps: list[Step]) -> None:
    assert list(decide(observed(job=job, row=row)).steps) == steps


# --- Properties ---------------------------------------------------------------------------------

rows = st.none() | st.builds(
    a_row,
    st.sampled_from(JobStatus),
    attempt_open=st.booleans(),
    pod_created=st.booleans(),
    resource_uid=st.sampled_from([None, "job-1", "another"]),
    finished_at=st.sampled_from([None, NOW]),
    publish_until=st.sampled_from([None, OLD, NOW + timedelta(minutes=2)]),
    reported_end=st.booleans(),
)
jobs = st.none() | st.builds(
    a_job,
    cancel=st.booleans(),
    deleting=st.booleans(),
    conditions=st.sampled_from([{}, RECORDED]),
)
pods = st.none() | st.builds(
    a_pod,
    phase=st.sampled_from(PodPhase),
    running=st.booleans(),
    deleting=st.booleans(),
    delete_at=st.sampled_from([None, OLD, NOW]),
    created_at=st.sampled_from([None, OLD, NOW]),
    exit_code=st.sampled_from([None, 0, 1, 20, 60, 137]),
    waiting=st.sampled_from([None, "ImagePullBackOff", "InvalidImageName", "ContainerCreating"]),
)


policies = st.builds(
    PoolPolicy,
    stop_policy=st.sampled_from(["None", "Hold", "Drain"]),
    start_deadline_s=st.sampled_from([1, 600]),
)


@given(rows, jobs, pods, policies)
def test_every_observation_has_one_decision_and_final_jobs_are_never_started(
    row: object, job: object, pod: object, policy: PoolPolicy
) -> None:
    seen = observed(row=row, job=job, pods={1: pod} if pod else {}, policy=policy)
    steps = decide(seen).steps
    assert decide(seen) == decide(seen)  # nothing but what was seen decides
    if seen.row is None or seen.row.status in FINAL_JOB | {JobStatus.QUEUED}:
        assert not any(isinstance(step, StartPod | FinishAttempt) for step in steps)
    if seen.row is not None and not seen.row.attempt_open:
        assert not any(isinstance(step, StartPod | FinishAttempt) for step in steps)
