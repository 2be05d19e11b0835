"""What kopf is told, and that it writes nothing: no finalizer, no annotation, no event."""

from __future__ import annotations

from typing import cast

import kopf
import pytest

from encoder_core.names import JOB_LABEL
from encoder_operator.forgetful import NoDiff, NoProgress
from encoder_operator.handlers import PAUSES_S, configure, register
from encoder_operator.operator import Operator


@pytest.fixture
def registry() -> kopf.OperatorRegistry:
    made = kopf.OperatorRegistry()
    register(made, cast(Operator, None))  # only what the watches bring would be told to it
    return made


@pytest.fixture
def settings() -> kopf.OperatorSettings:
    made = kopf.OperatorSettings()
    configure(made, jitter=lambda: 0.5)
    return made


def test_it_only_watches_three_kinds(registry: kopf.OperatorRegistry) -> None:
    watched = registry._watching.get_all_handlers()
    assert {h.selector.any_name or h.selector.plural for h in watched if h.selector} == {
        *("transcodejobs", "pods", "transcodepools"),
    }
    for others in (registry._changing, registry._spawning, registry._indexing, registry._webhooks):
        assert [*others.get_all_handlers()] == []


def test_no_handler_wants_a_finalizer(registry: kopf.OperatorRegistry) -> None:
    handlers = registry._watching.get_all_handlers()
    assert [h for h in handlers if getattr(h, "requires_finalizer", None)] == []


def test_it_keeps_no_state_in_the_objects_and_writes_no_events(
    settings: kopf.OperatorSettings,
) -> None:
    assert isinstance(settings.persistence.diffbase_storage, NoDiff)
    assert isinstance(settings.persistence.progress_storage, NoProgress)
    assert (settings.posting.enabled, settings.scanning.disabled) == (False, True)


def test_lists_come_in_parts_and_every_wait_ends(settings: kopf.OperatorSettings) -> None:
    watching, networking = settings.watching, settings.networking
    assert (watching.chunk_size, settings.queueing.idle_timeout) == (500, 0.2)
    assert watching.label_selectors["v1/pods"] == JOB_LABEL
    assert (watching.connect_timeout, networking.connect_timeout) == (5.0, 5.0)
    assert networking.request_timeout == 30.0
    # As a whole number: with a fraction the API server answers 400, and kopf ends.
    assert (type(watching.server_timeout), watching.server_timeout) == (int, 300)
    assert watching.client_timeout == 330.0
    assert watching.inactivity_timeout == 70.0  # bookmarks come once a minute


def test_its_pauses_are_short_and_not_in_step_with_others(
    settings: kopf.OperatorSettings,
) -> None:
    pauses = settings.networking.error_backoffs
    assert not isinstance(pauses, float)
    assert [*pauses] == [seconds * 1.25 for seconds in PAUSES_S]
    assert [*pauses] == [*pauses]  # for each call from the beginning
    assert max(pauses) <= 3.0
    assert 15 <= sum(PAUSES_S) <= 60  # an API server that restarts is back by then
