"""
The operator against a real API server and a real MySQL: lives a second, writes, latencies, restart.

Nodes, workers and the garbage collector are one stand-in process (tests/harness/standin.py), so
what is measured is the operator, the API server, etcd and MySQL, all on this machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks.report import Figure, Options, Series, say
from tests.harness.rig import Operator, Rig, rig

GOALS = {
    "life cycles at 50 writes/s": "≥ 4/s",
    "life cycles at 200 writes/s": "≥ 12/s",
    "operator writes a job": "≤ 12",
    "accepted → Pod created, idle, p50": "≤ 1 s",
    "accepted → Pod created, idle, p99": "≤ 2 s",
    "kubectl scale → Pod created, p99": "≤ 2 s",
    "restart until ready": "≤ 15 s",
    "resident after the restart": "≤ 300 MB",
}
LONG_S = 900.0


def run(options: Options, folder: Path) -> Iterable[Figure]:
    series = Series(goals=GOALS)
    quick = options.quick
    with rig(folder) as on:
        on.make_pool("default", places=60)
        on.make_pool("scaled", places=0)
        nodes = on.start_nodes(run_s=0.5)
        for rate, count in ((50, 30 if quick else 150), (200, 60 if quick else 400)):
            say(f"operator: {count} lives at {rate} writes/s")
            operator = on.start_operator(writes_per_s=rate, write_burst=rate, reconcilers=16)
            operator.wait_ready()
            _lives(on, operator, series, rate=rate, count=count, under_load=rate == 200)
            if rate == 200:
                _idle(on, series, samples=10 if quick else 40)
                _scale(on, series, samples=5 if quick else 30)
            operator.stop()
        nodes.kill()
        nodes.wait()
        _restart(on, series, live=100 if quick else 5000)
    return series.figures()


def _lives(
    on: Rig, operator: Operator, series: Series, *, rate: int, count: int, under_load: bool
) -> None:
    """The rate between the tenth and the ninetieth per cent of the lives, deletion included."""
    began, writes, rss = len(_gone(on)), sum(operator.writes().values()), operator.rss_mb()
    probes: list[tuple[str, float]] = []
    on.submit(count)
    on.make_pool_once("probe", places=20)
    while len(_gone(on)) - began < count + len(probes):
        if under_load and len(_gone(on)) - began < count * 0.8:
            probes += on.submit(1, pool="probe")
        time.sleep(0.5)
    times = sorted(_gone(on).values())[began:]
    first, last = times[len(times) // 10], times[len(times) * 9 // 10]
    series.add(f"life cycles at {rate} writes/s", len(times) * 0.8 / (last - first), unit="/s")
    writes = sum(operator.writes().values()) - writes
    series.add("operator writes a job", writes / len(times), unit="")
    series.add(f"grown over {len(times)} jobs", operator.rss_mb() - rss, unit="MB")
    if probes:
        _percentiles(series, "accepted → Pod created, under load", _waits(on, probes))


def _idle(on: Rig, series: Series, *, samples: int) -> None:
    say("operator: latency when idle")
    made = []
    for _ in range(samples):
        made += on.submit(1)
        time.sleep(0.37)
    on.wait_for("gone", lambda: all(name in _gone(on) for name, _ in made), timeout_s=LONG_S)
    _percentiles(series, "accepted → Pod created, idle", _waits(on, made))


def _scale(on: Rig, series: Series, *, samples: int) -> None:
    """One more place at a time in a pool whose jobs wait: until the Pod for it is there."""
    say("operator: scale")
    before = len(on.seen())
    on.submit(samples, pool="scaled")
    waits = []
    for places in range(1, samples + 1):
        pods = _pods(on)
        asked = time.time()
        on.scale("scaled", places)
        on.wait_for("a Pod", lambda pods=pods: _pods(on) - pods)  # type: ignore[misc]  # bound
        waits.append(min(on.seen()["pod", name] for name in _pods(on) - pods) - asked)
        done = places
        on.wait_for(
            "its end",
            lambda done=done: len(on.seen()) - before >= 2 * done,  # type: ignore[misc]
            timeout_s=LONG_S,
        )
        on.scale("scaled", 0)
        time.sleep(0.5)
    _percentiles(series, "kubectl scale → Pod created", waits)


def _restart(on: Rig, series: Series, *, live: int) -> None:
    say(f"operator: {live} live jobs")
    on.start_nodes(run_s=-1)
    on.scale("default", live)
    operator = on.start_operator(
        writes_per_s=5000, write_burst=5000, max_running=live, reconcilers=32
    )
    operator.wait_ready()
    on.submit(live)
    began = time.monotonic()
    on.wait_for("live", lambda: on.statuses().get("running", 0) >= live, timeout_s=LONG_S)
    series.add("starts without a limit of writes", live / (time.monotonic() - began), unit="/s")
    operator.stop(kill=True)
    again = on.start_operator(max_running=live)
    series.add("restart until ready", again.wait_ready(), unit="s")
    on.wait_for("all looked at", lambda: _idle_loop(again, live), timeout_s=LONG_S)
    series.add("live jobs at the restart", float(live), unit="")
    series.add("resident after the restart", again.rss_mb(), unit="MB")
    series.add("resident at most", again.rss_mb("VmHWM"), unit="MB")
    again.stop()


def _idle_loop(operator: Operator, live: int) -> bool:
    metrics = operator.metrics()
    looks = metrics.get('transcode_reconcile_seconds_count{result="done"}', 0)
    return looks >= live and metrics.get("transcode_queue_depth", 1) == 0


def _gone(on: Rig) -> dict[str, float]:
    return {name: at for (what, name), at in on.seen().items() if what == "gone"}


def _pods(on: Rig) -> set[str]:
    return {name for what, name in on.seen() if what == "pod"}


def _waits(on: Rig, made: list[tuple[str, float]]) -> list[float]:
    seen = on.seen()
    return [seen["pod", f"{name}-a1"] - at for name, at in made]


def _percentiles(series: Series, name: str, waits: list[float]) -> None:
    ordered = sorted(waits)
    series.add(f"{name}, p50", statistics.median(ordered), unit="s")
    series.add(f"{name}, p99", ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], unit="s")
