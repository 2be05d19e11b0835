"""Which delivery starts, so that one receiver that hangs holds up nobody else."""

from __future__ import annotations

from dataclasses import dataclass

from encoder_api.webhooks.lanes import Lanes

A, B, C = b"host a", b"host b", b"host c"


@dataclass(frozen=True)
class To:
    host_hash: bytes
    number: int = 0


def lanes(
    *waiting: To, total: int = 8, per_host: int = 2, answering: tuple[bytes, ...] = (A, B, C)
) -> Lanes[To]:
    made = Lanes[To](total=total, per_host=per_host)
    for host in answering:
        made.add(To(host), start_by=100)
        assert made.take(now=0) == To(host)
        made.done(host, well=True)
    for delivery in waiting:
        made.add(delivery, start_by=100)
    return made


def take_all(made: Lanes[To], *, now: float = 0) -> list[To]:
    taken = []
    while (delivery := made.take(now=now)) is not None:
        taken.append(delivery)
    return taken


def test_a_host_gets_its_share_and_the_others_go_past_it() -> None:
    made = lanes(To(A, 1), To(A, 2), To(A, 3), To(B, 4))
    assert take_all(made) == [To(A, 1), To(A, 2), To(B, 4)]
    assert made.full_hosts() == {A}


def test_a_place_that_becomes_free_is_the_next_ones() -> None:
    made = lanes(To(A, 1), To(A, 2), To(A, 3))
    take_all(made)
    made.done(A, well=True)
    assert take_all(made) == [To(A, 3)]


def test_all_hosts_together_stay_under_the_total() -> None:
    made = lanes(To(A), To(B), To(C), total=2)
    assert len(take_all(made)) == 2
    assert made.room == 0


def test_nothing_is_claimed_for_a_host_while_something_of_it_waits_here() -> None:
    made = lanes(To(A, 1), To(A, 2), To(A, 3))
    take_all(made)
    made.done(A, well=True)
    assert made.full_hosts() == {A}


def test_a_host_has_one_attempt_at_once_until_it_has_answered() -> None:
    made = lanes(To(A, 1), To(A, 2), To(A, 3), answering=())
    assert take_all(made) == [To(A, 1)]
    assert made.full_hosts() == {A}
    made.done(A, well=True)
    assert take_all(made) == [To(A, 2), To(A, 3)]


def test_a_host_that_is_not_well_gets_one_attempt_at_once() -> None:
    made = lanes(To(A, 1), To(A, 2), To(A, 3))
    take_all(made)
    made.done(A, well=False)
    made.done(A, well=False)
    assert take_all(made) == [To(A, 3)]
    assert made.full_hosts() == {A}


def test_a_host_that_answers_again_gets_its_share_back() -> None:
    made = lanes(To(A, 1))
    take_all(made)
    made.done(A, well=False)
    for number in (2, 3, 4):
        made.add(To(A, number), start_by=100)
    assert take_all(made) == [To(A, 2)]
    made.done(A, well=True)
    assert take_all(made) == [To(A, 3), To(A, 4)]


def test_what_waited_longer_than_its_lease_is_left_to_the_next_claim() -> None:
    made = lanes(To(A, 1), To(A, 2), To(A, 3))
    take_all(made)
    made.done(A, well=True)
    assert take_all(made, now=101) == []
    assert made.waiting == 0


def test_of_a_host_that_answers_those_are_claimed_too_that_start_next() -> None:
    made = lanes(To(A, 1), answering=(A,))
    assert (made.wanted(A), made.wanted(B)) == (4, 1)
    take_all(made)
    assert made.wanted(A) == 3


def test_hosts_of_the_past_are_forgotten() -> None:
    made = lanes(To(A))
    take_all(made)
    made.done(A, well=True)
    assert (made.running, made.full_hosts(), made.room) == (0, frozenset(), 8)
