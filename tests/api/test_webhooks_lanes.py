"""Which delivery starts, so that one receiver that hangs holds up nobody else."""

from __future__ import annotations

from dataclasses import dataclass

from encoder_api.webhooks.lanes import FORGET_S, PAUSE_MAX_S, PAUSE_MIN_S, REMEMBERED, Lanes

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
        made.done(host, well=True, now=0)
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
    assert made.full_hosts(now=0) == {A}


def test_a_place_that_becomes_free_is_the_next_ones() -> None:
    made = lanes(To(A, 1), To(A, 2), To(A, 3))
    take_all(made)
    made.done(A, well=True, now=0)
    assert take_all(made) == [To(A, 3)]


def test_all_hosts_together_stay_under_the_total() -> None:
    made = lanes(To(A), To(B), To(C), total=2)
    assert len(take_all(made)) == 2
    assert made.room(now=0) == 0


def test_nothing_is_claimed_for_a_host_while_something_of_it_waits_here() -> None:
    made = lanes(To(A, 1), To(A, 2), To(A, 3))
    take_all(made)
    made.done(A, well=True, now=0)
    assert made.full_hosts(now=0) == {A}


def test_a_host_has_one_attempt_at_once_until_it_has_answered() -> None:
    made = lanes(To(A, 1), To(A, 2), To(A, 3), answering=())
    assert take_all(made) == [To(A, 1)]
    assert made.full_hosts(now=0) == {A}
    made.done(A, well=True, now=0)
    assert take_all(made) == [To(A, 2), To(A, 3)]


def test_a_host_that_is_not_well_gets_one_attempt_at_once() -> None:
    made = lanes(To(A, 1), To(A, 2), To(A, 3), To(A, 4))
    take_all(made)
    made.done(A, well=False, now=0)
    made.done(A, well=False, now=0)
    assert take_all(made, now=PAUSE_MIN_S) == [To(A, 3)]
    assert made.full_hosts(now=PAUSE_MIN_S) == {A}


def test_a_host_that_answers_again_gets_its_share_back() -> None:
    made = lanes(To(A, 1))
    take_all(made)
    made.done(A, well=False, now=0)
    for number in (2, 3, 4):
        made.add(To(A, number), start_by=100)
    assert take_all(made, now=PAUSE_MIN_S) == [To(A, 2)]
    made.done(A, well=True, now=PAUSE_MIN_S)
    assert take_all(made, now=PAUSE_MIN_S) == [To(A, 3), To(A, 4)]


def test_what_waited_longer_than_its_lease_is_left_to_the_next_claim() -> None:
    made = lanes(To(A, 1), To(A, 2), To(A, 3))
    take_all(made)
    made.done(A, well=True, now=0)
    assert take_all(made, now=101) == []
    assert made.waiting == 0


def test_of_a_host_that_answers_those_are_claimed_too_that_start_next() -> None:
    made = lanes(To(A, 1), answering=(A,))
    assert (made.wanted(A), made.wanted(B)) == (4, 1)
    take_all(made)
    assert made.wanted(A) == 3


# --- A host that is not well rests between attempts --------------------------------------------


def refuse(made: Lanes[To], host: bytes, *, now: float) -> float:
    """One attempt, which finds the host unwell at once; when the next one may start."""
    made.add(To(host), start_by=now + 1)
    assert take_all(made, now=now) == [To(host)]
    made.done(host, well=False, now=now)
    return rested(made, host, after=now)


def rested(made: Lanes[To], host: bytes, *, after: float) -> float:
    """The first half second in which something may be claimed for the host."""
    now = after
    while host in made.full_hosts(now=now):
        now += 0.5
    return now


def test_each_rest_is_twice_as_long_as_the_one_before_up_to_a_bound() -> None:
    made, now, rests = lanes(), 0.0, []
    for _ in range(8):
        again = refuse(made, A, now=now)
        rests.append(again - now)
        now = again
    assert rests == [PAUSE_MIN_S, 1, 2, 4, 8, PAUSE_MAX_S, PAUSE_MAX_S, PAUSE_MAX_S]


def test_its_first_answer_ends_the_rests() -> None:
    made = lanes()
    now = refuse(made, A, now=refuse(made, A, now=0))
    made.add(To(A, 1), start_by=100)
    assert take_all(made, now=now) == [To(A, 1)]
    made.done(A, well=True, now=now)
    assert A not in made.full_hosts(now=now)
    assert refuse(made, A, now=now) == now + PAUSE_MIN_S


def test_attempts_that_were_under_way_together_make_one_rest() -> None:
    made = lanes(To(A, 1), To(A, 2))
    take_all(made)
    made.done(A, well=False, now=10)
    made.done(A, well=False, now=10)
    assert rested(made, A, after=10) == 10 + PAUSE_MIN_S
    assert refuse(made, A, now=11) == 12, "one was counted"


def test_an_answer_to_one_that_was_under_way_ends_the_rest() -> None:
    made = lanes(To(A, 1), To(A, 2), To(A, 3))
    take_all(made)
    made.done(A, well=False, now=10)
    assert take_all(made, now=10) == []
    made.done(A, well=True, now=10)
    assert take_all(made, now=10) == [To(A, 3)]


def test_while_a_host_rests_the_others_go_past_it_and_have_all_the_room() -> None:
    made = lanes(*[To(A, number) for number in range(5)], To(B, 6), total=4)
    assert take_all(made) == [To(A, 0), To(A, 1), To(B, 6)]
    made.done(A, well=False, now=10)
    made.done(A, well=False, now=10)
    assert made.waiting == 3
    assert made.room(now=10) == 3
    assert made.full_hosts(now=10) == {A}
    made.add(To(C, 7), start_by=100)
    assert take_all(made, now=10) == [To(C, 7)]
    assert take_all(made, now=10 + PAUSE_MIN_S) == [To(A, 2)]


# --- Many hosts that hang ----------------------------------------------------------------------


def test_hosts_that_have_not_answered_leave_a_quarter_of_the_places_to_those_that_have() -> None:
    new = [To(b"new %d" % number) for number in range(8)]
    made = lanes(*new, total=8, answering=(A,))
    assert take_all(made) == new[:6]
    assert (made.wanted(b"new 8"), made.wanted(A)) == (0, 4)
    assert made.room(now=0) == 2, "what cannot start takes nobody's place"
    made.add(To(A), start_by=100)
    assert take_all(made) == [To(A)]
    made.done(b"new 0", well=True, now=0)
    assert take_all(made) == [new[6]]


def test_hosts_that_are_not_well_leave_three_quarters() -> None:
    made, unwell = lanes(total=8), [b"unwell %d" % number for number in range(4)]
    for host in unwell:
        refuse(made, host, now=0)
    for host in unwell:
        made.add(To(host), start_by=100)
    assert take_all(made, now=PAUSE_MIN_S) == [To(host) for host in unwell[:2]]
    assert made.full_hosts(now=PAUSE_MIN_S) == set(unwell)
    new = [To(b"new %d" % number) for number in range(4)]
    for delivery in new:
        made.add(delivery, start_by=100)
    assert take_all(made, now=PAUSE_MIN_S) == new
    made.done(unwell[0], well=False, now=PAUSE_MIN_S)
    assert take_all(made, now=PAUSE_MIN_S) == [To(unwell[2])]


def test_where_there_is_one_place_every_host_may_have_it() -> None:
    made = lanes(To(A), total=1, answering=())
    assert take_all(made) == [To(A)]


# --- What is forgotten -------------------------------------------------------------------------


def test_a_host_that_nothing_was_sent_to_for_long_begins_anew() -> None:
    made = lanes()
    now = refuse(made, A, now=refuse(made, A, now=0)) + FORGET_S
    assert refuse(made, A, now=now) == now + PAUSE_MIN_S


def test_hosts_of_the_past_are_forgotten() -> None:
    made = lanes(To(A))
    take_all(made)
    made.done(A, well=True, now=0)
    assert (made.running, made.full_hosts(now=0), made.room(now=0)) == (0, frozenset(), 8)


def test_of_hosts_that_answered_the_latest_are_remembered() -> None:
    made = lanes(answering=(A, B))
    for number in range(REMEMBERED - 2):
        answer(made, b"host %d" % number)
    answer(made, A)
    assert (made.wanted(A), made.wanted(B)) == (4, 4)
    answer(made, C)
    assert (made.wanted(A), made.wanted(B), made.wanted(C)) == (4, 1, 4)


def answer(made: Lanes[To], host: bytes) -> None:
    made.add(To(host), start_by=100)
    assert made.take(now=0) == To(host)
    made.done(host, well=True, now=0)
