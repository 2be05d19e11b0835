"""
How long it may take until a failure is told, and until its job goes on: docs/failures.md shows
this table, and the tests of the cluster ring hold the service to it on real nodes.

Bounds, not figures: they hold on two cores that a cluster, a database and all servers share. What
an admin sets (a deadline, a grace) comes on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from encoder_core.failures import kind_of
from encoder_core.retries import RetryLimits, Stop, decide_retry


class Stated(NamedTuple):
    what: str
    code: str
    since: str
    within_s: int
    on_top: str | None = None
    """The setting of the pool that comes on top."""


CAME: Final = "the job is accepted"

FAILS: Final[Mapping[str, Stated]] = {
    "no-such-image": Stated(
        *("the image is not there", "image_unavailable", CAME, 60, "imagePullGraceSeconds"),
    ),
    "bad-image-name": Stated("the image has no valid name", "image_unavailable", CAME, 60),
    "no-worker-in-it": Stated("the image has no worker in it", "pod_invalid", CAME, 60),
    "other-machine": Stated("the image is for another machine", "pod_invalid", CAME, 60),
    "foreign-image": Stated("a policy denies the Pod", "admission_denied", CAME, 60),
    "too-slow": Stated(
        *("it takes too long", "deadline_exceeded", CAME, 120, "activeDeadlineSeconds"),
    ),
    "small-disk": Stated("its scratch space is full", "capacity_disk", CAME, 120),
    "frozen": Stated("ffmpeg stands still", "encode_stalled", CAME, 240),
}
"""The attempt has failed, by the name of the pool in test_failures.py, which allows only one."""

MOVED: Final[Mapping[str, Stated]] = {
    code: Stated(what, code, since, within_s)
    for code, what, since, within_s in (
        ("capacity_memory", "the worker runs out of memory", "the attempt begins", 120),
        ("pod_deleted", "somebody deletes the Pod", "its deletion", 90),
        ("node_drained", "the node is drained", "the drain begins", 90),
        ("pod_evicted", "the node runs out of memory", "the kubelet is to see it", 120),
        ("pod_rejected", "the node has less room than it had", "the kubelet is told", 120),
        # Toleration, the Pod's grace and a margin for clocks make 150 s. The worker may publish for
        # 120 s after its last word.
        (
            *("node_lost", "the node dies or is cut off"),
            *("Kubernetes sees that (50 s by default)", 200),
        ),
    )
}
"""Another attempt works."""

WAITS: Final[Mapping[str, Stated]] = {
    code: Stated(what, code, CAME, 60)
    for code, what in (
        ("pod_unschedulable", "no node is right or has room"),
        ("quota_exceeded", "the namespace's quota is used up"),
    )
}
"""Told in the conditions, and then waited for."""


class Tries(NamedTuple):
    attempts: int
    between_s: int
    """All waits between them, each stretched as far as it may be."""


def tries_of(code: str) -> Tries:
    """What becomes of a job that fails so each time, by the default retries."""
    budget, between_s = kind_of(code).budget, 0.0
    for attempts in range(1, 100):
        follows = decide_retry(code, {budget: attempts}, limits=RetryLimits(), jitter=1.0)
        if isinstance(follows, Stop):
            return Tries(attempts, round(between_s))
        between_s += follows.after_s
    raise AssertionError(f"{code} ends no job")


def render() -> str:
    lines = [
        "| what goes wrong | code | the attempt has failed within | attempts | the job within |",
        "|---|---|---|---|---|",
    ]
    for each in FAILS.values():
        attempts, between_s = tries_of(each.code)
        once = f", and `{each.on_top}`" if each.on_top else ""
        often = f", and {attempts} times `{each.on_top}`" if each.on_top else ""
        job = "the same" if attempts == 1 else f"{attempts * each.within_s + between_s} s{often}"
        lines.append(
            f"| {each.what} | `{each.code}` | {each.within_s} s{once} | {attempts} | {job} |"
        )
    lines += [
        "",
        "| what goes wrong | code | what is then the case | no later than |",
        "|---|---|---|---|",
    ]
    for table, then in ((MOVED, "the next attempt works"),
                        (WAITS, "the job says what it waits for")):  # fmt: skip
        lines += [
            f"| {each.what} | `{each.code}` | {then} | {each.within_s} s after {each.since} |"
            for each in table.values()
        ]
    return "\n".join(lines)
