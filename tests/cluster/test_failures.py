"""What keeps a worker from its work on a real node, and what the record then says of it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from encoder_core.exits import Exit
from encoder_core.failures import Budget, kind_of
from encoder_core.reports import FinalReport
from encoder_operator.exits import DISRUPTED
from encoder_operator.pods import GRACE_S, WORKER_UID
from encoder_operator.status import reason_of
from encoder_worker.sandbox import landlock_version
from tests.cluster.deployment import FOREIGN_IMAGE, NAMESPACE, Deployment, condition, fresh
from tests.cluster.test_service import CLIP, ENDED, LONG_CLIP, SLOW, an_output, drip, hurry
from tests.cluster.times import FAILS, MOVED, WAITS, Stated
from tests.figures import tell_figure

Clip = Callable[[str], Path]

MIB = 1024**2
BIG_SOURCE_BYTES = 64 * MIB
ONCE = {"app": 1, "infra": 1, "config": 1}
"""The first failure ends the job, so that it can be read."""


def make_pool(service: Deployment, name: str, **spec: Any) -> None:
    """A pool with one place, which the API knows."""
    body = {
        "apiVersion": "encoder.dev/v1alpha1",
        "kind": "TranscodePool",
        "metadata": {"name": name},
        "spec": {"maxConcurrency": 1, **spec},
    }
    service.kubectl("apply", "-f", "-", text=json.dumps(body))

    service.wait_for(f"the API knows the pool {name}", lambda: name in service.pools())


def submit(service: Deployment, pool: str, source: str, **output: Any) -> dict[str, Any]:
    upload = {"kind": "http", "url": f"{service.http.url}/{pool}.mp4"}
    return service.submit(
        {
            "source": {"kind": "http", "url": source},
            "outputs": [an_output(upload, **output)],
            "pool": pool,
        }
    )


def wait_for_end(service: Deployment, number: int) -> dict[str, Any]:
    service.wait_for(f"job {number} ends", lambda: service.job(number)["status"] in ENDED)
    return service.job(number)


def failures_of(job: Mapping[str, Any]) -> list[str | None]:
    """The code of each attempt; None for one that did not fail."""
    return [(attempt.get("failure") or {}).get("code") for attempt in job["attempts"]]


@pytest.fixture(scope="module")
def sources(service: Deployment, clip: Clip) -> dict[str, str]:
    """
    Clips by what is special about them.

    The big one has nothing in most of its bytes: a box that players and ffmpeg skip.
    """
    long = clip(LONG_CLIP).read_bytes()
    padding = BIG_SOURCE_BYTES.to_bytes(4, "big") + b"free" + bytes(BIG_SOURCE_BYTES - 8)
    return {
        "short": service.http.serve("/failures/short.mp4", clip(CLIP).read_bytes()),
        "long": service.http.serve("/failures/long.mp4", long),
        "big": service.http.serve("/failures/big.mp4", long + padding),
    }


# --- What ends a job -----------------------------------------------------------------------------


class Case(NamedTuple):
    pool: dict[str, Any]
    """What is wrong with it."""
    source: str
    output: dict[str, Any]
    words: str
    """Of whoever saw it, in the condition of its TranscodeJob."""


def with_image(image: str) -> dict[str, Any]:
    return {"podTemplate": {"image": image}, "imagePullGraceSeconds": 0}


ENDS = {
    "no-such-image": Case(
        with_image("localhost/encoder-worker:nobody-pushed-it"),
        *("short", {}, "nobody-pushed-it"),
    ),
    "bad-image-name": Case(
        with_image("localhost/encoder-worker:Not A Tag"),
        *("short", {}, "invalid reference format"),
    ),
    "no-worker-in-it": Case(
        with_image("localhost/encoder-worker:empty"),
        *("short", {}, "executable file not found"),
    ),
    "other-machine": Case(with_image(FOREIGN_IMAGE), *("short", {}, "exec format error")),
    "foreign-image": Case(
        with_image("docker.io/someone/miner:latest"),
        *("short", {}, "the image of a worker must begin with"),
    ),
    "too-slow": Case({"activeDeadlineSeconds": 8}, *("long", SLOW, "longer than")),
    "small-disk": Case(
        {"podTemplate": {"resources": {"limits": {"ephemeral-storage": "16Mi"}}}},
        *("big", SLOW, "16Mi"),
    ),
    "frozen": Case({}, *("long", SLOW, "made no progress")),
}
"""By the name of its pool; times.py says as what it ends, and when at the latest."""


@pytest.fixture(scope="module")
def submitted(service: Deployment, sources: dict[str, str]) -> Iterator[dict[str, dict[str, Any]]]:
    """A job in each of those pools, all at once: most of them only wait for the kubelet."""
    base = "docker.io/library/debian:bookworm-slim"
    for node in service.cluster.nodes:
        node.ctr("images", "tag", base, "localhost/encoder-worker:empty")
    accepted = {}
    for name, case in reversed(ENDS.items()):  # what takes longest to be noticed first
        make_pool(service, name, retries=ONCE, retention={"failedSeconds": 3600}, **case.pool)
        accepted[name] = submit(service, name, sources[case.source], **case.output)
    freeze_ffmpeg(service, f"tj-{accepted['frozen']['uuid']}-a1")
    yield accepted
    for name, job in accepted.items():
        service.kubectl("delete", "tp", name, "--wait=false")
        service.kubectl("delete", "tj", f"tj-{job['uuid']}", "--wait=false")


def freeze_ffmpeg(service: Deployment, pod: str) -> None:
    """It stays, and does nothing more: so looks one that waits for a lock, or for a dead disk."""

    def running() -> list[Path]:
        return [folder for words, folder in processes_of(service.pod(pod)) if is_ffmpeg(words)]

    [process] = service.wait_for("ffmpeg runs", running)
    os.kill(int(process.name), signal.SIGSTOP)


@pytest.mark.parametrize("pool", [pool for pool in ENDS if pool != "frozen"])
def test_a_job_that_cannot_run_ends_and_says_why(
    service: Deployment, submitted: dict[str, dict[str, Any]], pool: str
) -> None:
    check_end(service, pool, submitted[pool])


def check_end(service: Deployment, pool: str, accepted: dict[str, Any]) -> None:
    code = FAILS[pool].code
    job = wait_for_end(service, accepted["id"])
    assert (job["status"], failures_of(job)) == ("failed", [code])
    assert job["failure"]["code"] == code
    assert job["attempts"][0]["budget"] == kind_of(code).budget
    assert not service.http.has(f"/{pool}.mp4")
    name = f"tj-{accepted['uuid']}"
    service.wait_for(
        "its resource says so",
        lambda: condition(service.resource(name), "Succeeded") == ("False", reason_of(code)),
    )
    assert ENDS[pool].words in service.message(name, "Succeeded")
    borne_s = ENDS[pool].pool.get("activeDeadlineSeconds", 0)
    check_time(FAILS[pool], job["createdAt"], job["finishedAt"], borne_s=borne_s)


def seconds_of(begin: str, end: str) -> float:
    """Between two times of the API."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()


def check_time(stated: Stated, begin: str, end: str, *, borne_s: float = 0) -> None:
    """By the times in the record, not by when somebody looked."""
    took_s = seconds_of(begin, end) - borne_s
    tell_figure(f"{stated.what}: {stated.code}, {took_s:.0f} s after {stated.since}")
    assert took_s <= stated.within_s


def check_told(service: Deployment, name: str, reason: str) -> None:
    """The Event names the attempt that was taken away; the condition is of the last one."""
    events = ("--field-selector", f"involvedObject.name={name},reason=DisruptionObserved")
    messages = ("get", "events", *events, "-o", "jsonpath={.items[*].message}")
    said = service.wait_for(f"an Event of {name}", lambda: service.kubectl(*messages))
    assert said.startswith(f"{reason}: Attempt 1: ")


def told_at(service: Deployment, name: str) -> str:
    """When the operator last wrote the status of a resource, by the API server's clock."""
    fields = (service.resource(name) or {})["metadata"]["managedFields"]
    [written] = [entry["time"] for entry in fields if entry.get("subresource") == "status"]
    return str(written)


# --- What is borne until somebody helps ----------------------------------------------------------


def test_a_job_for_which_no_node_is_right_says_so_and_starts_on_one_that_becomes_so(
    service: Deployment, sources: dict[str, str]
) -> None:
    pool = fresh("picky")
    make_pool(service, pool, podTemplate={"nodeSelector": {"encoder-tests/right": "yes"}})
    accepted = submit(service, pool, sources["short"])
    name = f"tj-{accepted['uuid']}"
    service.wait_for(
        "its resource says that no node is right",
        lambda: condition(service.resource(name), "Succeeded") == ("Unknown", "PodUnschedulable"),
    )
    assert "didn't match Pod's node affinity/selector" in service.message(name, "PodReady")
    check_time(
        WAITS["pod_unschedulable"], service.job(accepted["id"])["createdAt"], told_at(service, name)
    )
    node = service.cluster.nodes[0].name
    service.kubectl("label", "node", node, "encoder-tests/right=yes")
    try:
        job = wait_for_end(service, accepted["id"])
    finally:
        service.kubectl("label", "node", node, "encoder-tests/right-")
    assert (job["status"], failures_of(job)) == ("completed", [None])


def test_a_job_over_the_quota_waits_for_it_and_is_charged_nothing(
    service: Deployment, sources: dict[str, str]
) -> None:
    priority = {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": "encoder-tests-scarce"},
        "value": 1,
    }
    scope = {"scopeName": "PriorityClass", "operator": "In", "values": ["encoder-tests-scarce"]}
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "scarce"},
        "spec": {"hard": {"pods": "0"}, "scopeSelector": {"matchExpressions": [scope]}},
    }
    for body in (priority, quota):
        service.kubectl("apply", "-f", "-", text=json.dumps(body))
    path = f"/api/v1/namespaces/{NAMESPACE}/resourcequotas/scarce"
    service.wait_for(
        "the quota counts",
        lambda: ((service.maybe(path) or {}).get("status") or {}).get("hard"),
    )
    pool = fresh("scarce")
    make_pool(
        service, pool, retries=ONCE, podTemplate={"priorityClassName": "encoder-tests-scarce"}
    )
    accepted = submit(service, pool, sources["short"])

    def met_the_quota() -> dict[str, Any] | None:
        job = service.job(accepted["id"])
        # Now and then it is tried again for a moment.
        waits = job["status"] == "queued" and failures_of(job)[:1] == ["quota_exceeded"]
        return job if waits else None

    waiting = service.wait_for("it waits, as its first attempt met the quota", met_the_quota)
    told = waiting["attempts"][0]["finishedAt"]
    check_time(WAITS["quota_exceeded"], waiting["createdAt"], told)
    service.kubectl("delete", "resourcequota", "scarce")
    job = wait_for_end(service, accepted["id"])
    assert job["status"] == "completed"
    assert {a["budget"] for a in job["attempts"] if a.get("failure")} == {Budget.CAPACITY}


# --- What is tried again -------------------------------------------------------------------------


def test_after_running_out_of_memory_the_next_pod_gets_more_of_it(
    service: Deployment, sources: dict[str, str]
) -> None:
    pool = fresh("tight")
    make_pool(
        service,
        pool,
        memoryGrowth={"percent": 400},
        podTemplate={"resources": {"limits": {"memory": "160Mi"}, "requests": {"memory": "160Mi"}}},
    )
    big = {"width": 1920, "height": 1080, "upscale": True, "preset": "veryslow"}
    accepted = submit(service, pool, sources["short"], **big)
    second = f"tj-{accepted['uuid']}-a2"
    grown = service.wait_for("a second Pod", lambda: service.pod(second))
    assert grown["spec"]["containers"][0]["resources"]["limits"]["memory"] == "640Mi"
    ended = ending_of(service.pod(f"tj-{accepted['uuid']}-a1"))
    assert ended["exitCode"] == Exit.MEMORY
    last_word = FinalReport.model_validate_json(ended["message"])
    assert last_word.failure is not None
    assert last_word.failure.code == "capacity_memory"
    assert "160 MiB" in last_word.failure.message
    job = wait_for_end(service, accepted["id"])
    *short, last = failures_of(job)
    assert (job["status"], set(short), last) == ("completed", {"capacity_memory"}, None)
    begun, again = (attempt["startedAt"] for attempt in job["attempts"][:2])
    check_time(MOVED["capacity_memory"], begun, again)


def ending_of(pod: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the kubelet says of the worker that ran in a Pod: exit code and termination message."""
    assert pod is not None
    [container] = pod["status"]["containerStatuses"]
    ended: dict[str, Any] = container["state"]["terminated"]
    return ended


def begin_long(service: Deployment, pool: str, source: str, **output: Any) -> tuple[int, str]:
    """
    A job that encodes, and the name of its Pod.

    What makes it last is the caller's to say: a source that drips, or SLOW.
    """
    accepted = submit(service, pool, source, **output)
    service.wait_for(
        "it encodes", lambda: (service.job(accepted["id"])["progress"] or {}).get("percent", 0) > 1
    )
    return accepted["id"], f"tj-{accepted['uuid']}-a1"


@pytest.mark.parametrize(("how", "code"), [("deleted", "pod_deleted"), ("drained", "node_drained")])
def test_a_pod_that_somebody_takes_away_costs_an_attempt_and_none_of_the_jobs_own(
    service: Deployment, clip: Clip, how: str, code: str
) -> None:
    pool = fresh(how)
    make_pool(service, pool, retries={"app": 1})
    source = drip(service, f"/failures/{how}.mp4", clip(LONG_CLIP).read_bytes())
    number, pod = begin_long(service, pool, source)
    began = datetime.now(UTC).isoformat()
    if how == "deleted":
        service.kubectl("delete", "pod", pod, "--wait=false")
    else:
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": NAMESPACE},
        }
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
        status, answer = service.cluster.send("POST", path, eviction)
        assert status == 201, answer
    asked = service.pod(pod)
    service.wait_for("it is told", lambda: failures_of(service.job(number))[0] == code)
    hurry(service, f"/failures/{how}.mp4")
    job = wait_for_end(service, number)
    assert (job["status"], failures_of(job)) == ("completed", [code, None])
    first = job["attempts"][0]
    assert (first["budget"], first["exitCode"]) == (Budget.INFRA, Exit.INTERRUPTED)
    check_time(MOVED[code], began, job["attempts"][1]["startedAt"])
    check_told(service, pod.removesuffix("-a1"), DISRUPTED[code])
    if asked is not None:  # it may be gone by the time somebody asks
        # The deletion is stamped with the end of the grace, after which the kubelet kills.
        left_s = seconds_of(first["finishedAt"], asked["metadata"]["deletionTimestamp"])
        took_s = GRACE_S - left_s
        tell_figure(f"{how}: exit {first['exitCode']} and recorded {took_s:.1f} s after SIGTERM")


# --- The worker from its image -------------------------------------------------------------------


def processes_of(pod: Mapping[str, Any] | None) -> Iterator[tuple[list[str], Path]]:
    """Arguments and folder in /proc of all that runs in a Pod's control group."""
    if pod is None:
        return
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            if f"pod{pod['metadata']['uid']}" in (process / "cgroup").read_text():
                yield (process / "cmdline").read_bytes().decode().split("\0"), process


def is_ffmpeg(arguments: list[str]) -> bool:
    return arguments[0].endswith("/ffmpeg")


def status_of(process: Path) -> dict[str, list[str]]:
    """What the kernel says of a process, by its own names."""
    lines = (process / "status").read_text().splitlines()
    return {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}


def test_ffmpeg_is_locked_in_and_takes_the_limit_of_its_pod_for_the_cores(
    service: Deployment, sources: dict[str, str]
) -> None:
    one_core = {"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "200m"}}}
    pool = fresh("one-core")
    make_pool(service, pool, podTemplate=one_core)
    number, name = begin_long(service, pool, sources["long"], **SLOW)
    pod = service.pod(name)
    assert pod is not None
    running = [*processes_of(pod)]
    [(arguments, ffmpeg)] = [each for each in running if is_ffmpeg(each[0])]
    [worker] = [process for words, process in running if "encoder_worker" in " ".join(words)]
    threads = {after for word, after in pairwise(arguments) if word == "-threads"}
    really = len([*(ffmpeg / "task").iterdir()])
    roots = [line.split() for line in (ffmpeg / "mounts").read_text().splitlines()]
    status, of_worker = status_of(ffmpeg), status_of(worker)
    told = service.kubectl("logs", name)
    assert service.request("POST", f"/jobs/{number}/cancel").ok

    assert threads == {"1"}
    assert really == 1  # no pool of any library's comes on top
    assert [options.split(",")[0] for _, where, _, options, *_ in roots if where == "/"] == ["ro"]
    # Real, effective, saved and of the file system.
    assert status["Uid"] == of_worker["Uid"] == [str(WORKER_UID)] * 4
    assert [status[name] for name in ("CapEff", "CapPrm", "CapBnd")] == [["0" * 16]] * 3
    assert (status["NoNewPrivs"], status["Seccomp"]) == (["1"], ["2"])
    # The Pod's profile locks the worker in too; ours comes on top for ffmpeg.
    assert int(status["Seccomp_filters"][0]) == int(of_worker["Seccomp_filters"][0]) + 1
    [began] = [line for line in map(json.loads, told.splitlines()) if "sandbox" in line]
    assert began["sandbox"][:2] == [f"landlock:{landlock_version()}", "seccomp"]
    assert wait_for_end(service, number)["status"] == "canceled"


# --- Begun with the first ones -------------------------------------------------------------------


def test_an_ffmpeg_that_stands_still_is_ended_by_the_watchdog_and_told_as_such(
    service: Deployment, submitted: dict[str, dict[str, Any]]
) -> None:
    check_end(service, "frozen", submitted["frozen"])
    assert service.job(submitted["frozen"]["id"])["attempts"][0]["exitCode"] == Exit.STALLED
