"""
What a job needs next, by what is seen of it.

Aspects: no row, no resource, final, canceling, starting, running, ended, stuck, and that every
observation has a decision.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder_core.states import FINAL_JOB, JobStatus
from encoder_operator.decide import (
    Adopt,
    CancelJob,
    Decision,
    DeletePod,
    DeleteResource,
    Disown,
    FinishAttempt,
    Observed,
    StartPod,
    Step,
    decide,
)
from encoder_operator.exits import Ended
from encoder_operator.seen import PodPhase
from tests.operator.builders import NOW, a_job, a_pod, a_row, an_ended_pod, observed

RECORDED = {"ResultRecorded": {"status": "True"}}
DONE = a_row(JobStatus.COMPLETED, attempt_open=False, finished_at=NOW)
STOPPING = a_row(JobStatus.CANCELING)
WAITING = a_row(JobStatus.QUEUED, attempt=0, attempt_open=False, pod_created=False)
PULLING = a_pod(phase=PodPhase.PENDING, running=False, waiting="ImagePullBackOff")
KILL = DeletePod(a_pod().name, a_pod().uid)


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
                row=None, job=a_job(name="mine", job_uid=None, status={"jobId": 7}), pods={}
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
            observed(job=a_job(uid="another")),
            [Disown("This job belongs to another resource.")],
            id="a second resource for the same job is disowned",
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
            [FinishAttempt(1, Ended("pod_deleted", "The Pod is gone."), lost=True)],
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
            [FinishAttempt(1, Ended(None), lost=True)],
            id="canceled once its Pod is gone",
        ),
        pytest.param(
            observed(row=STOPPING, job=None, pods={}),
            [FinishAttempt(1, Ended(None), lost=True)],
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
            observed(row=DONE, job=a_job(conditions=RECORDED), pods={}),
            [],
            id="a finished resource stays for its retention",
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
            [KILL, FinishAttempt(1, Ended("image_unavailable", "ImagePullBackOff"))],
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


rows = st.none() | st.builds(
    a_row,
    st.sampled_from(JobStatus),
    attempt_open=st.booleans(),
    pod_created=st.booleans(),
    resource_uid=st.sampled_from([None, "job-1", "another"]),
    finished_at=st.sampled_from([None, NOW]),
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
    exit_code=st.sampled_from([None, 0, 1, 20, 60, 137]),
    waiting=st.sampled_from([None, "ImagePullBackOff", "InvalidImageName", "ContainerCreating"]),
)


@given(rows, jobs, pods)
def test_every_observation_has_a_decision_and_final_jobs_are_never_started(
    row: object, job: object, pod: object
) -> None:
    seen = observed(row=row, job=job, pods={1: pod} if pod else {})
    steps = decide(seen).steps
    if seen.row is None or seen.row.status in FINAL_JOB | {JobStatus.QUEUED}:
        assert not any(isinstance(step, StartPod | FinishAttempt) for step in steps)
    if seen.row is not None and not seen.row.attempt_open:
        assert not any(isinstance(step, StartPod | FinishAttempt) for step in steps)
