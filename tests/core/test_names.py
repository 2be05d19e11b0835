"""Names, identifiers, events: what other systems key on."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder_core.documents import EventDocument
from encoder_core.events import (
    EVENT_TYPES,
    FINAL_EVENTS,
    JOB_BUMPED,
    OUTPUT_UPLOADED,
    webhook_payload,
)
from encoder_core.ids import hash_token, new_token, new_uuid
from encoder_core.names import job_of_resource, pod_name, resource_name, secret_name

JOB = UUID("0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b")
DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def test_the_objects_of_a_job_are_named_after_it() -> None:
    resource = resource_name(JOB)
    assert resource == f"tj-{JOB}"
    assert pod_name(resource, 2) == f"tj-{JOB}-a2"
    assert secret_name(resource, 2) == f"encoder-order-tj-{JOB}-a2"


@given(st.uuids(), st.integers(1, 9999))
def test_every_name_is_a_dns_label(job: UUID, attempt: int) -> None:
    assert DNS_LABEL.fullmatch(pod_name(resource_name(job), attempt))


@given(st.uuids())
def test_a_resource_leads_back_to_its_job(job: UUID) -> None:
    assert job_of_resource(resource_name(job)) == job


@pytest.mark.parametrize("name", ["my-film", "tj-", "tj-1", f"tj-{JOB}-a1", f"tj-{JOB}\n", ""])
def test_names_that_people_chose_lead_to_no_job(name: str) -> None:
    assert job_of_resource(name) is None


def test_identifiers_sort_by_the_time_they_were_made() -> None:
    made = [new_uuid(unix_ms=ms) for ms in (0, 1, 1_700_000_000_000, 2**48 - 1)]
    assert made == sorted(made)


@given(st.integers(0, 2**48 - 1))
def test_identifiers_are_uuids_of_version_7(unix_ms: int) -> None:
    made = new_uuid(unix_ms=unix_ms)
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert made.int >> 80 == unix_ms


def test_identifiers_made_in_the_same_instant_differ() -> None:
    assert len({new_uuid(unix_ms=0) for _ in range(1000)}) == 1000


def test_a_token_has_256_bits_and_only_its_hash_is_kept() -> None:
    token = new_token()
    assert len(token) == 43
    assert token != new_token()
    assert len(hash_token(token)) == 32
    assert hash_token(token) == hash_token(token)


def test_there_is_an_event_for_every_status_and_one_for_outputs() -> None:
    assert set(EVENT_TYPES) == {
        "job.queued",
        "job.starting",
        "job.running",
        "job.canceling",
        "job.completed",
        "job.failed",
        "job.canceled",
        OUTPUT_UPLOADED,
        JOB_BUMPED,
        JOB_BUMPED,
    }
    assert {"job.completed", "job.failed", "job.canceled"} == FINAL_EVENTS


def test_a_webhook_says_what_happened_when_and_to_which_job() -> None:
    event = new_uuid()
    vienna = timezone(timedelta(hours=1))
    payload = webhook_payload(
        "job.completed",
        event_id=event,
        occurred_at=datetime(2026, 1, 2, 4, 4, 5, 678901, vienna),
        sequence=4,
        job={"id": 1},
    )
    assert payload == {
        "type": "job.completed",
        "id": str(event),
        "timestamp": "2026-01-02T03:04:05.678+00:00",
        "sequence": 4,
        "data": {"id": 1},
    }
    assert EventDocument.model_validate(payload).timestamp == datetime(
        2026, 1, 2, 3, 4, 5, 678000, UTC
    )
