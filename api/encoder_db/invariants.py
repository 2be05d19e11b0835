"""What must hold of every job's rows after every transaction. Pure: fsck.py reads and repairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from encoder_core.states import ACTIVE_JOB, OPEN_ATTEMPT, AttemptStatus, JobStatus, OutputStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSeen:
    index: int
    status: OutputStatus
    has_result: bool
    details_lost: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSeen:
    number: int
    status: AttemptStatus
    executor: str
    has_ended: bool
    """Its time of ending is written down."""

    @property
    def is_open(self) -> bool:
        return self.status in OPEN_ATTEMPT


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageSeen:
    queue: str
    is_known: bool
    """Claimers know its queue, by a row of `queue_owners`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A job with all its rows, as far as the invariants speak of them."""

    id: int
    status: JobStatus
    is_deleted: bool
    version: int
    attempt: int
    has_failure: bool
    queue: str
    """Where it belongs, by its pool, priority and owner."""
    outputs: Sequence[OutputSeen]
    attempts: Sequence[AttemptSeen]
    message: MessageSeen | None
    events: Sequence[int]
    untold: Sequence[int]
    """Versions of which its receiver was told nothing, and will be told nothing."""
    has_credentials: bool
    credentials_expire: bool
    has_open_letter: bool
    """A dead letter that nobody has put back."""

    @property
    def is_final(self) -> bool:
        return self.status not in ACTIVE_JOB and self.status is not JobStatus.QUEUED

    @property
    def is_going(self) -> bool:
        """It was deleted and is over: its last rows are being taken away."""
        return self.is_deleted and self.is_final

    @property
    def current(self) -> AttemptSeen | None:
        """The attempt that may write, if any."""
        if self.is_final:
            return None
        found = [item for item in self.attempts if item.number == self.attempt and item.is_open]
        return found[0] if found else None


@dataclass(frozen=True, slots=True)
class Check:
    """One rule: its name, the sentence that it is, what its repair does, and who breaks it."""

    name: str
    rule: str
    repair: str
    is_broken: Callable[[Record], bool]


BY_HAND: Final = "none: only the destination can tell what is true"


def _stale_places(record: Record) -> bool:
    return any(item.is_open and item is not record.current for item in record.attempts)


def _unnumbered(record: Record) -> bool:
    return record.attempt < max((item.number for item in record.attempts), default=0)


def _untimed(record: Record) -> bool:
    return any(item.is_open == item.has_ended for item in record.attempts)


def _unowned(record: Record) -> bool:
    return record.status in ACTIVE_JOB and record.current is None


def _unwatched(record: Record) -> bool:
    current = record.current
    local = current is not None and current.executor == "local"
    return record.status in ACTIVE_JOB and local and record.message is None


def _misplaced(record: Record) -> bool:
    message = record.message
    return message is not None and (message.queue != record.queue or not message.is_known)


def _unfinished(record: Record) -> bool:
    begun = {OutputStatus.PENDING, OutputStatus.RUNNING}
    ended_badly = record.status in (JobStatus.FAILED, JobStatus.CANCELED)
    return ended_badly and any(item.status in begun for item in record.outputs)


def _unproven(record: Record) -> bool:
    return any(
        item.status is OutputStatus.UPLOADED and not item.has_result and not item.details_lost
        for item in record.outputs
    )


def _kept(record: Record) -> bool:
    has_light_rows = (
        *(record.outputs, record.attempts, record.message),
        *(record.has_credentials, record.has_open_letter),
    )
    return record.is_going and any(has_light_rows)


def _overkept(record: Record) -> bool:
    if not record.has_credentials:
        return False
    if record.status in (JobStatus.COMPLETED, JobStatus.CANCELED):
        return True
    return record.status is JobStatus.FAILED and not record.credentials_expire


CHECKS: Final = (
    Check(
        "place",
        "An attempt holds a place only while it is its job's latest and the job is not over.",
        "ends the attempt as `lost`",
        _stale_places,
    ),
    Check(
        "attempt_number",
        "A job's attempt number is not below that of any of its attempts.",
        "raises it, so that no number is given twice",
        _unnumbered,
    ),
    Check(
        "attempt_end",
        "An attempt has a time of ending exactly when it has ended.",
        "writes it down, or takes it away",
        _untimed,
    ),
    Check(
        "deleted",
        "Of a job that was deleted and is over, only events and inline sources are left to delete.",
        "deletes its rows",
        _kept,
    ),
    Check(
        "pointless_message",
        "A job that is over is in no queue.",
        "deletes the message",
        lambda record: record.is_final and record.message is not None,
    ),
    Check(
        "waiting",
        "A queued job is in its queue.",
        "puts it there, due now",
        lambda record: record.status is JobStatus.QUEUED and record.message is None,
    ),
    Check(
        "owner",
        "A starting, running or canceling job has an open attempt.",
        "queues the job again, or ends it as `canceled`",
        _unowned,
    ),
    Check(
        "lease",
        "The local engine holds a job's message while it works, so that its death is noticed.",
        "puts a message there, due now: the attempt ends when its worker is silent",
        _unwatched,
    ),
    Check(
        "queue",
        "A message is in the queue of its job's pool, priority and owner, and claimers know it.",
        "moves the message, and makes the queue known",
        _misplaced,
    ),
    Check(
        "completed",
        "Every output of a completed job is uploaded.",
        BY_HAND,
        lambda record: (
            record.status is JobStatus.COMPLETED
            and any(item.status is not OutputStatus.UPLOADED for item in record.outputs)
        ),
    ),
    Check(
        "unfinished_output",
        "No output of a failed or canceled job is pending or running.",
        "gives the output its job's end",
        _unfinished,
    ),
    Check(
        "uploaded",
        "An uploaded output has its result, or the warning that its details were lost.",
        "adds the warning `details_lost`",
        _unproven,
    ),
    Check(
        "reason",
        "A failed job says why.",
        "says `worker_lost`",
        lambda record: record.status is JobStatus.FAILED and not record.has_failure,
    ),
    Check(
        "credentials",
        "Credentials are gone when a job is completed or canceled, and expire when it failed.",
        "destroys them, or lets them expire",
        _overkept,
    ),
    Check(
        "events",
        "A job has one event for each step of its version, until it is deleted and over.",
        "writes the missing events, with the job as it is now",
        lambda record: (
            not record.is_going and list(record.events) != list(range(1, record.version + 1))
        ),
    ),
    Check(
        "delivery",
        "Each event of a job with a receiver was told, or waits to be.",
        "delivers the event: late, and with its own number",
        lambda record: bool(record.untold),
    ),
    Check(
        "dead_letter",
        "A dead letter is open only while its job is failed or canceled.",
        "notes that it was put back",
        lambda record: (
            record.has_open_letter and record.status not in (JobStatus.FAILED, JobStatus.CANCELED)
        ),
    ),
)

ORPHAN: Final = "Rows of a job exist only while the job does."
NO_BODY: Final = "A delivery has its event, or carries the body itself."
PARKED: Final = "The earliest delivery of a job waits for no other."
LEFT_BEHIND: Final = (
    ("orphan", ORPHAN, "deletes the rows"),
    ("delivery_body", NO_BODY, "deletes the delivery: nobody knows what it said"),
    ("parked", PARKED, "makes it due"),
)
"""The rules about rows that no job has."""


def broken(record: Record) -> list[Check]:
    """The rules that these rows break, in the order in which they are repaired."""
    return [check for check in CHECKS if check.is_broken(record)]
