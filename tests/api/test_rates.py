"""A key may make so many requests; others do not notice, and clients are told when to come back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from encoder_api.rates import MAX_BUCKETS, RateLimiter
from tests.api.conftest import ClientMaker, StillClock
from tests.api.samples import job

Headers = dict[str, str]
AddKey = Callable[..., Headers]


def test_a_key_has_its_bucket_and_a_bucket_fills_again() -> None:
    clock = StillClock()
    limiter = RateLimiter(2.0, clock=clock)

    def waits(key: str) -> float:
        allowance = limiter.take(key)
        assert allowance is not None
        return allowance.wait_s

    assert [waits("a") for _ in range(5)] == [0, 0, 0, 0, 0.5]
    assert waits("b") == 0
    clock.now = 0.25
    assert waits("a") == 0.25
    clock.now = 0.5
    assert (waits("a"), waits("a")) == (0, 0.5)
    clock.now = 1000.0
    assert [waits("a") for _ in range(5)] == [0, 0, 0, 0, 0.5]


@pytest.mark.parametrize(("per_s", "key"), [(0.0, "a"), (5.0, "")])
def test_nobody_is_limited_without_a_limit_or_a_key(per_s: float, key: str) -> None:
    assert RateLimiter(per_s).take(key) is None


def test_a_slow_rate_lets_one_through() -> None:
    limiter = RateLimiter(0.1, clock=StillClock())
    first, second = limiter.take("a"), limiter.take("a")
    assert first is not None
    assert second is not None
    assert (first.wait_s, second.wait_s) == (0, 10)


def test_buckets_that_are_full_again_are_forgotten() -> None:
    clock = StillClock()
    limiter = RateLimiter(1.0, clock=clock)
    for number in range(MAX_BUCKETS):
        limiter.take(str(number))
    clock.now = 3.0
    limiter.take("one more")
    assert len(limiter._buckets) == 1


def test_too_many_requests_are_refused_and_say_when_to_come_back(
    make_client: ClientMaker, add_key: AddKey
) -> None:
    client, one, two = make_client(rate_limit_per_s=0.5), add_key("one"), add_key("two")
    granted = client.get("/jobs", headers=one)
    assert granted.headers["ratelimit-policy"] == '"key";q=1;w=2'
    assert granted.headers["ratelimit"].startswith('"key";r=0;t=')
    refused = client.get("/jobs", headers=one)
    assert refused.status_code == 429
    assert refused.json()["type"] == "urn:encoder:problem:too_many_requests"
    assert 1 <= int(refused.headers["retry-after"]) <= 2
    assert refused.headers["ratelimit"].startswith('"key";r=0;t=')
    assert client.get("/jobs", headers=two).status_code == 200
    assert client.get("/livez", headers=one).status_code == 200


def test_who_needs_no_key_is_not_limited(make_client: ClientMaker) -> None:
    client = make_client(rate_limit_per_s=0.5)
    answers = [client.get("/jobs") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert "ratelimit" not in answers[0].headers


def test_an_owner_with_a_full_queue_is_told_when_to_come_back(
    make_client: ClientMaker, add_key: AddKey
) -> None:
    client = make_client(max_queued_per_owner=1)
    one, two = add_key("one"), add_key("two")
    assert client.post("/jobs", json=job(), headers=one).status_code == 202
    refused = client.post("/jobs", json=job(), headers=one)
    assert refused.status_code == 429
    assert refused.json()["type"] == "urn:encoder:problem:too_many_queued"
    assert int(refused.headers["retry-after"]) > 0
    assert client.post("/jobs", json=job(), headers=two).status_code == 202


def test_jobs_that_were_canceled_are_no_way_around_it(
    make_client: ClientMaker, add_key: AddKey
) -> None:
    client = make_client(max_queued_per_owner=1)
    key = add_key("one")
    canceled = client.post("/jobs", json=job(), headers=key).json()["id"]
    client.post(f"/jobs/{canceled}/cancel", headers=key)
    assert client.post("/jobs", json=job(), headers=key).status_code == 202
    refused = client.post(f"/jobs/{canceled}/retry", headers=key)
    assert refused.status_code == 429
    assert refused.json()["type"] == "urn:encoder:problem:too_many_queued"
    assert int(refused.headers["retry-after"]) > 0
