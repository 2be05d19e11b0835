"""What a Pod asks of its node: whose word counts, how it grows, and where that ends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from encoder_core.errors import JobError
from encoder_core.reports import SourceInfo, SourceReport, Started
from encoder_core.specs import JobSpec
from encoder_db.settings import wrong_settings
from encoder_db.store import Store
from encoder_operator.act import estimate_of
from encoder_operator.policy import Caps, PoolPolicy, read_policy
from encoder_operator.quantity import format_bytes, parse_bytes, parse_millicores
from encoder_operator.settings import OperatorSettings
from encoder_operator.sizing import (
    Estimate,
    Sizes,
    Tried,
    Wanted,
    has_room_to_grow,
    size_pod,
)
from tests.db import builders as make
from tests.operator.desk import BY_HAND, RUNNING, Desk
from tests.operator.lives import CRASH_S, DIED

MI, GI = 1024**2, 1024**3
NOTHING = Wanted()
ESTIMATE = Estimate(cpu_m=1500, memory=700 * MI, scratch=3 * GI)
OPEN = PoolPolicy()
TEMPLATE = PoolPolicy(template={"resources": {"requests": {"memory": "3Gi", "cpu": "750m"}}})
CAPPED = PoolPolicy(name="hd", caps=Caps(cpu_m=2000, memory=2 * GI, scratch=20 * GI))


@pytest.mark.parametrize(
    ("asked", "policy", "wanted", "estimate", "want"),
    [
        pytest.param(None, OPEN, NOTHING, None, (1000, GI, 10 * GI), id="nothing is known"),
        pytest.param(
            None, OPEN, NOTHING, ESTIMATE, (1500, 700 * MI, 3 * GI), id="the planner's estimate"
        ),
        pytest.param(
            None,
            OPEN,
            Wanted(memory="2Gi"),
            ESTIMATE,
            (1500, 2 * GI, 3 * GI),
            id="the operator's settings before the estimate",
        ),
        pytest.param(
            None,
            TEMPLATE,
            Wanted(memory="2Gi"),
            ESTIMATE,
            (750, 3 * GI, 3 * GI),
            id="the pool before the settings",
        ),
        pytest.param(
            {"requests": {"memory": "5Gi"}},
            TEMPLATE,
            NOTHING,
            ESTIMATE,
            (750, 5 * GI, 3 * GI),
            id="the job before its pool",
        ),
        pytest.param(
            None,
            CAPPED,
            Wanted(memory="9Gi", cpu="8", scratch="90Gi"),
            None,
            (2000, 2 * GI, 20 * GI),
            id="no more than the pool gives to any",
        ),
    ],
)
def test_whose_word_counts(
    asked: dict[str, Any] | None,
    policy: PoolPolicy,
    wanted: Wanted,
    estimate: Estimate | None,
    want: tuple[int, int, int],
) -> None:
    sizes = size_pod(asked, policy, wanted, estimate=estimate)
    assert (sizes.cpu_m, sizes.memory, sizes.scratch) == want
    assert sizes.memory_limit == sizes.memory


def test_a_request_and_a_limit_of_the_job_are_both_kept() -> None:
    asked = {"requests": {"memory": "1Gi", "cpu": "1"}, "limits": {"memory": "2Gi", "cpu": "2"}}
    assert size_pod(asked, OPEN, NOTHING).as_resources() == {
        "requests": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "10Gi"},
        "limits": {"cpu": "2", "memory": "2Gi", "ephemeral-storage": "10Gi"},
    }


POOL_LIMITS = PoolPolicy(
    template={"resources": {"limits": {"cpu": "2", "memory": "2Gi", "ephemeral-storage": "9Gi"}}}
)


@pytest.mark.parametrize(
    ("asked", "policy", "wanted", "cpu", "memory", "scratch"),
    [
        pytest.param(
            {"limits": {"cpu": "500m", "memory": "1Gi"}},
            TEMPLATE,
            NOTHING,
            (500, 500),
            (GI, GI),
            10 * GI,
            id="a limit of the job and larger requests of its pool",
        ),
        pytest.param(
            {"requests": {"cpu": "4", "memory": "4Gi", "ephemeral-storage": "50Gi"}},
            POOL_LIMITS,
            NOTHING,
            (4000, 4000),
            (4 * GI, 4 * GI),
            50 * GI,
            id="requests of the job and smaller limits of its pool",
        ),
        pytest.param(
            {"requests": {"cpu": "1", "memory": "1Gi"}},
            POOL_LIMITS,
            NOTHING,
            (1000, 2000),
            (GI, 2 * GI),
            9 * GI,
            id="requests of the job and larger limits of its pool",
        ),
        pytest.param(
            None,
            POOL_LIMITS,
            Wanted(cpu="3", memory="3Gi", scratch="90Gi"),
            (2000, 2000),
            (2 * GI, 2 * GI),
            9 * GI,
            id="limits of the pool and larger settings",
        ),
        pytest.param(
            {"requests": {"cpu": "4"}},
            OPEN,
            Wanted(cpu_limit="2"),
            (4000, 4000),
            (GI, GI),
            10 * GI,
            id="a request of the job and a smaller setting",
        ),
        pytest.param(
            None,
            OPEN,
            Wanted(cpu="2", cpu_limit="1"),
            (1000, 1000),
            (GI, GI),
            10 * GI,
            id="settings that contradict each other",
        ),
    ],
)
def test_what_counts_first_holds_or_lifts_what_comes_after_it(
    asked: dict[str, Any] | None,
    policy: PoolPolicy,
    wanted: Wanted,
    cpu: tuple[int, int],
    memory: tuple[int, int],
    scratch: int,
) -> None:
    sizes = size_pod(asked, policy, wanted)
    assert (sizes.cpu_m, sizes.cpu_limit_m) == cpu
    assert (sizes.memory, sizes.memory_limit) == memory
    assert sizes.scratch == scratch


AMOUNTS = st.none() | st.integers(1, 8)


@st.composite
def some_resources(draw: st.DrawFn) -> dict[str, dict[str, str]]:
    """Of whose parts the API server takes each: no request above a limit beside it."""
    made: dict[str, dict[str, str]] = {"requests": {}, "limits": {}}
    for name, unit in (("cpu", ""), ("memory", "Gi"), ("ephemeral-storage", "Gi")):
        request, limit = draw(AMOUNTS), draw(AMOUNTS)
        if request is not None and limit is not None:
            request, limit = sorted((request, limit))
        for where, amount in (("requests", request), ("limits", limit)):
            if amount is not None:
                made[where][name] = f"{amount}{unit}"
    return made


@given(
    asked=some_resources(),
    template=some_resources(),
    settings=some_resources(),
    cpu_m=st.sampled_from((None, 500, 3000)),
)
def test_no_request_is_above_its_limit_and_the_jobs_own_words_stand(
    asked: dict[str, dict[str, str]],
    template: dict[str, dict[str, str]],
    settings: dict[str, dict[str, str]],
    cpu_m: int | None,
) -> None:
    wanted = Wanted(
        cpu=settings["requests"].get("cpu"),
        cpu_limit=settings["limits"].get("cpu"),
        memory=settings["requests"].get("memory"),
    )
    estimate = None if cpu_m is None else Estimate(cpu_m=cpu_m, memory=GI)
    policy = PoolPolicy(template={"resources": template})
    given_ = size_pod(asked, policy, wanted, estimate=estimate).as_resources()
    for name, request in given_["requests"].items():
        limit = given_["limits"].get(name)
        assert limit is None or parse_millicores(request) <= parse_millicores(limit)
    for where, words in asked.items():
        for name, word in words.items():
            if name != "ephemeral-storage" or where == "limits":
                assert parse_millicores(given_[where][name]) == parse_millicores(word)


@pytest.mark.parametrize("quantity", ["1e1000000000", "1e99999", "1e1.5", "NaN", "much"])
@pytest.mark.parametrize("name", ["cpu", "memory", "ephemeral-storage"])
def test_what_is_no_quantity_of_anything_ends_the_job_at_once(name: str, quantity: str) -> None:
    """The schema takes none of these; a number of a million digits would stop all other jobs."""
    with pytest.raises(JobError, match=rf"spec.resources.limits.{name}") as caught:
        size_pod({"limits": {name: quantity}}, OPEN, NOTHING)
    assert caught.value.code == "never_fits"


def test_a_setting_that_is_no_quantity_is_refused_with_its_name() -> None:
    with pytest.raises(ValidationError) as refused:
        OperatorSettings(memory="2 GB")
    [said] = wrong_settings(refused.value)
    assert said == ("ENCODER_OPERATOR_MEMORY must be a quantity of Kubernetes, such as 500m or 2Gi")


@pytest.mark.parametrize(
    ("name", "quantity"), [("cpu", "3"), ("memory", "3Gi"), ("ephemeral-storage", "21Gi")]
)
def test_a_job_that_asks_for_more_than_its_pool_gives_never_fits(name: str, quantity: str) -> None:
    with pytest.raises(JobError, match=rf"spec.resources.requests.{name} is .*; pool hd") as caught:
        size_pod({"requests": {name: quantity}}, CAPPED, NOTHING)
    assert caught.value.code == "never_fits"


def had(memory: int, failure: str | None = "capacity_memory", scratch: int = 10 * GI) -> Tried:
    sizes = Sizes(cpu_m=1000, memory=memory, memory_limit=memory, scratch=scratch)
    return Tried(sizes=sizes, failure=failure)


@pytest.mark.parametrize(
    ("policy", "tried", "want"),
    [
        pytest.param(OPEN, [had(GI)], 1536 * MI, id="half as much again"),
        pytest.param(OPEN, [had(1536 * MI), had(GI)], 2304 * MI, id="and again"),
        pytest.param(
            OPEN, [had(1536 * MI, "node_lost"), had(GI)], 1536 * MI, id="kept after a lost node"
        ),
        pytest.param(CAPPED, [had(1536 * MI)], 2 * GI, id="up to the pool's cap"),
        pytest.param(
            PoolPolicy(growth_percent=200, memory_max=1800 * MI),
            [had(GI)],
            1800 * MI,
            id="by the pool's factor, up to where the pool says",
        ),
        pytest.param(OPEN, [had(GI, "encode_failed")], GI, id="not after another failure"),
    ],
)
def test_memory_grows_after_an_attempt_that_ran_out_of_it(
    policy: PoolPolicy, tried: list[Tried], want: int
) -> None:
    sizes = size_pod(None, policy, NOTHING, tried=tried)
    assert (sizes.memory, sizes.memory_limit) == (want, want)


def test_scratch_grows_too() -> None:
    sizes = size_pod(None, OPEN, NOTHING, tried=[had(GI, "capacity_disk")])
    assert (sizes.memory, sizes.scratch) == (GI, 15 * GI)


@pytest.mark.parametrize(
    ("memory", "want"), [(GI, True), (2 * GI, False)], ids=["below the cap", "at it"]
)
def test_another_attempt_is_pointless_when_it_would_get_no_more(memory: int, want: bool) -> None:
    assert has_room_to_grow(had(memory).sizes, CAPPED, "capacity_memory") is want
    assert has_room_to_grow(had(memory).sizes, OPEN, "capacity_memory") is True


@given(
    st.lists(
        st.tuples(
            st.integers(128, 9000), st.sampled_from(["capacity_memory", "capacity_disk", None])
        ),
        max_size=5,
    ),
    st.integers(100, 400),
)
def test_whatever_was_tried_a_pod_stays_within_its_pool(
    attempts: list[tuple[int, str | None]], percent: int
) -> None:
    policy = PoolPolicy(growth_percent=percent, caps=CAPPED.caps)
    sizes = size_pod(None, policy, NOTHING, tried=[had(m * MI, f) for m, f in attempts])
    assert sizes.memory <= sizes.memory_limit <= 2 * GI
    assert sizes.scratch <= 20 * GI
    assert Sizes.of_json(sizes.to_json()) == sizes


def spec(height: int, codec: str = "libx264") -> JobSpec:
    destination = {"kind": "s3", "bucket": "b-1", "path": "o.mp4"}
    output = {"videoCodec": codec, "videoBitrate": "4M", "height": height}
    return JobSpec.model_validate(
        {
            "source": {"kind": "https", "url": "https://a.example/i.mp4"},
            "outputs": [{**output, "destination": destination}],
        }
    )


def test_a_larger_picture_gets_more_memory_and_a_known_source_its_room_on_disk() -> None:
    small, large = estimate_of(spec(360), None), estimate_of(spec(2160), None)
    assert small is not None
    assert large is not None
    assert large.memory > 2 * small.memory
    assert small.scratch is None
    known = estimate_of(spec(360), SourceInfo(size_bytes=4 * GI, duration_s=3600.0))
    assert known is not None
    assert known.scratch is not None
    assert 5 * GI < known.scratch < 8 * GI  # the source, and an hour at 4 Mbit/s


@pytest.mark.parametrize(
    ("found", "least", "most"),
    [
        pytest.param(None, 10 * GI, 10 * GI, id="as before when it had not looked yet"),
        pytest.param(
            SourceInfo(size_bytes=MI, duration_s=1.0), 10 * GI, 10 * GI, id="no less than before"
        ),
        pytest.param(
            SourceInfo(size_bytes=40 * GI, duration_s=3600.0),
            41 * GI,
            43 * GI,
            id="room for a large source, and an hour at 4 Mbit/s",
        ),
    ],
)
def test_what_a_worker_found_before_it_died_sizes_the_next_pod(
    store: Store, found: SourceInfo | None, least: int, most: int
) -> None:
    desk, name = Desk(store), "by-hand"
    destination = {"kind": "s3", "bucket": "clips", "path": "o.mp4"}
    output = {"videoBitrate": "4M", "height": 720, "destination": destination}
    desk.apply(name, {**BY_HAND, "outputs": [output]})
    desk.settle(name)
    desk.dispatch()
    desk.settle(name)
    desk.move_pod(name, RUNNING)
    assert desk.say_of(name, Started())
    if found is not None:
        assert desk.say_of(name, SourceReport(source=found))
    desk.move_pod(name, DIED)
    desk.settle(name)
    make.let_pass(store, CRASH_S)
    desk.dispatch()
    desk.settle(name)
    first, second = (asked(desk.pod(name, attempt)) for attempt in (1, 2))
    room = second["ephemeral-storage"]
    assert first["ephemeral-storage"] == "10Gi"
    assert second == {**first, "ephemeral-storage": room}
    assert least <= parse_bytes(room) <= most


def asked(pod: dict[str, Any]) -> dict[str, str]:
    """What it asks of its node; of memory and disk it gets no more."""
    resources: dict[str, dict[str, str]] = pod["spec"]["containers"][0]["resources"]
    requests, limits = resources["requests"], resources["limits"]
    assert limits.items() <= requests.items()
    return requests


@pytest.mark.parametrize(
    ("quantity", "count"),
    [("1Gi", GI), ("1.5Gi", 1536 * MI), ("500M", 500_000_000), ("7", 7), (7, 7), ("1e3", 1000)],
)
def test_quantities(quantity: str | int, count: int) -> None:
    assert parse_bytes(quantity) == count
    assert parse_bytes(format_bytes(count)) == count


def test_cores() -> None:
    assert [parse_millicores(q) for q in ("2", "500m", "0.1", 3)] == [2000, 500, 100, 3000]


def test_what_a_pool_leaves_open_is_the_operators() -> None:
    defaults = PoolPolicy(active_deadline_s=77, start_deadline_s=88)
    assert read_policy("hd", None, defaults).active_deadline_s == 77
    spec = {
        "startDeadlineSeconds": 5,
        "resourceCaps": {"cpu": "500m", "ephemeral-storage": "1Gi"},
        "memoryGrowth": {"percent": 200, "max": "4Gi"},
        "retries": {"infra": 3},
        "retention": {"failedSeconds": 9},
    }
    policy = read_policy("hd", spec, defaults)
    assert (policy.start_deadline_s, policy.active_deadline_s) == (5, 77)
    assert policy.caps == Caps(cpu_m=500, scratch=GI)
    assert (policy.growth_percent, policy.most_memory) == (200, 4 * GI)
    assert (policy.retries.infra, policy.retries.config) == (3, 5)
    assert (policy.keep_failed.total_seconds(), policy.keep_completed) == (
        9,
        defaults.keep_completed,
    )
