"""The catalogue of failures: names that stay, sentences that help, exit codes that cover it."""

from __future__ import annotations

import re

import pytest

from encoder_core.errors import JobError
from encoder_core.exits import EXIT_FAILURES, Exit, exit_for
from encoder_core.failures import (
    FAILURES,
    MESSAGE_CHARACTERS,
    Budget,
    Failure,
    FailureKind,
    Fault,
    failure,
    kind_of,
)

KINDS = [pytest.param(kind, id=kind.code) for kind in FAILURES.values()]
SINGLE_WORDS = {"abandoned", "canceled"}  # whole sentences by themselves


@pytest.mark.parametrize("kind", KINDS)
def test_a_code_says_who_and_what(kind: FailureKind) -> None:
    assert kind.code in SINGLE_WORDS or re.fullmatch(r"[a-z]+(_[a-z]+)+", kind.code)


@pytest.mark.parametrize("kind", KINDS)
def test_a_title_and_a_hint_are_for_people(kind: FailureKind) -> None:
    assert re.fullmatch(r"[A-Zf].*[^.]", kind.title), "a title is no sentence of its own"
    assert re.fullmatch(r"[A-Z].*\.", kind.hint), "a hint is a sentence"
    assert len(kind.title) <= 60


@pytest.mark.parametrize(
    ("who", "fault"),
    [
        ("source_", Fault.SOURCE),
        ("destination_", Fault.DESTINATION),
        ("encode_", Fault.MEDIA),
        ("output_", Fault.MEDIA),
        ("capacity_", Fault.CAPACITY),
        ("worker_", Fault.SERVICE),
        ("node_", Fault.SERVICE),
    ],
)
def test_the_first_word_of_a_code_says_whose_it_is(who: str, fault: Fault) -> None:
    faults = {kind.fault for kind in FAILURES.values() if kind.code.startswith(who)}
    assert faults == {fault}


def test_machines_are_never_charged_to_the_caller() -> None:
    charged = {
        kind.code
        for kind in FAILURES.values()
        if kind.fault is Fault.SERVICE and kind.budget is Budget.APP
    }
    # What fails unexpectedly may be our mistake with this very source: it must not go on for ever.
    assert charged == {"worker_failed"}


def test_what_the_request_got_wrong_is_final() -> None:
    budgets = {kind.budget for kind in FAILURES.values() if kind.fault is Fault.REQUEST}
    assert budgets == {Budget.NONE}


def test_a_failure_without_words_takes_its_title() -> None:
    assert failure("source_not_found").message == "The source does not exist."


def test_a_failure_carries_what_its_kind_says() -> None:
    assert failure("source_slow", "s3.example sent 3 KiB/s.", output=1).to_json() == {
        "code": "source_slow",
        "fault": "source",
        "message": "s3.example sent 3 KiB/s.",
        "hint": "Serve the source from a faster place.",
        "retryable": True,
        "output": 1,
    }


def test_a_long_message_keeps_its_beginning_and_a_long_detail_its_end() -> None:
    long = {**failure("encode_failed").to_json(), "message": "a" + "x" * 5000}
    assert len(Failure.model_validate(long).message) == MESSAGE_CHARACTERS
    cut = failure("encode_failed", "a" + "x" * 5000, detail="x" * 5000 + "z")
    assert (len(cut.message), cut.message[0]) == (MESSAGE_CHARACTERS, "a")
    assert cut.detail is not None
    assert (len(cut.detail), cut.detail[-1]) == (4096, "z")


def test_a_code_outside_the_catalogue_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        failure("no_such_code")


def test_a_code_that_came_from_a_newer_worker_counts_as_an_unexpected_failure() -> None:
    assert kind_of("code_of_tomorrow").code == "worker_failed"


def test_an_error_of_a_job_carries_its_failure() -> None:
    error = JobError("destination_full", "ftp.example has no room.", retry_after_s=9.0)
    assert (error.code, str(error), error.retry_after_s) == (
        "destination_full",
        "ftp.example has no room.",
        9.0,
    )


def test_every_exit_but_success_stands_for_a_failure_of_the_catalogue() -> None:
    assert set(EXIT_FAILURES) == set(Exit) - {Exit.SUCCEEDED}
    assert set(EXIT_FAILURES.values()) <= set(FAILURES)


@pytest.mark.parametrize("kind", KINDS)
def test_every_failure_has_an_exit_that_is_no_success(kind: FailureKind) -> None:
    for retryable in (True, False):
        assert exit_for(kind.code, retryable=retryable) in EXIT_FAILURES


@pytest.mark.parametrize("code", sorted(set(EXIT_FAILURES.values())))
def test_the_failure_of_an_exit_leads_back_to_that_exit(code: str) -> None:
    assert EXIT_FAILURES[exit_for(code, retryable=FAILURES[code].retryable)] == code


WORKERS_CODES = [
    kind
    for kind in FAILURES.values()
    if kind.fault in (Fault.REQUEST, Fault.SOURCE, Fault.DESTINATION, Fault.MEDIA)
]


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.code) for kind in WORKERS_CODES])
def test_an_exit_code_alone_says_who_is_at_fault_and_whether_to_try_again(
    kind: FailureKind,
) -> None:
    general = FAILURES[EXIT_FAILURES[exit_for(kind.code, retryable=kind.retryable)]]
    assert (general.fault, general.retryable) == (kind.fault, kind.retryable)


def test_exit_codes_stay_clear_of_those_of_shells_and_signals() -> None:
    assert all(code == 0 or 20 <= code < 126 for code in Exit)
