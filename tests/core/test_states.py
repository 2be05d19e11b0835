"""Which status may follow which."""

from __future__ import annotations

from encoder_core.states import (
    ACTIVE_JOB,
    FINAL_JOB,
    JOB_TRANSITIONS,
    OPEN_ATTEMPT,
    AttemptStatus,
    JobStatus,
)

J = JobStatus


def test_every_status_has_a_row() -> None:
    assert set(JOB_TRANSITIONS) == set(JobStatus)


def test_a_completed_job_never_changes() -> None:
    assert JOB_TRANSITIONS[J.COMPLETED] == frozenset()


def test_a_job_that_is_being_canceled_never_completes() -> None:
    assert JOB_TRANSITIONS[J.CANCELING] == {J.CANCELED}


def test_only_a_retry_by_request_leaves_a_final_status() -> None:
    assert {status: JOB_TRANSITIONS[status] for status in FINAL_JOB} == {
        J.COMPLETED: frozenset(),
        J.FAILED: {J.QUEUED},
        J.CANCELED: {J.QUEUED},
    }


def test_no_status_follows_itself() -> None:
    assert all(status not in after for status, after in JOB_TRANSITIONS.items())


def test_every_job_can_end() -> None:
    """From each status a final one is within reach."""
    ends = set(FINAL_JOB)
    while grown := {s for s, after in JOB_TRANSITIONS.items() if after & ends} - ends:
        ends |= grown
    assert ends == set(JobStatus)


def test_every_status_can_be_reached_from_queued() -> None:
    seen = {J.QUEUED}
    while grown := {after for status in seen for after in JOB_TRANSITIONS[status]} - seen:
        seen |= grown
    assert seen == set(JobStatus)


def test_a_job_waits_or_is_active_or_is_final() -> None:
    assert {J.QUEUED} | ACTIVE_JOB | FINAL_JOB == set(JobStatus)
    assert not ACTIVE_JOB & FINAL_JOB


def test_only_open_attempts_hold_a_place() -> None:
    assert {AttemptStatus.CREATED, AttemptStatus.RUNNING} == OPEN_ATTEMPT
