"""
The operator against a real API server and a real MySQL: lives a second, writes, latencies, restart.

kwok plays the nodes (tests/harness/kwok.py), one process reports for the workers
(tests/harness/standin.py); the scheduler and the garbage collector are the real ones. All of it is
on this machine, and takes of its CPU.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.report import Figure, Options, Series, say
from tests.harness.rig import Operator, Rig, rig

GOALS: dict[str, str] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
LONG_S = 900.0
SCALED = [f"scaled-{number}" for number in range(12)]  # a Pod ends while eleven others are opened
BUSY = 60  # jobs that wait for another pool: some seconds of work
RUN_S = 2.0  # of a Pod; its worker's last report comes before, also on a busy machine


def run(options: Options, folder: Path) -> Iterable[Figure]:
    series = Series(goals=GOALS)
    quick = options.quick
    if options.wants("lives"):
        with _rig(folder / "lives", run_s=RUN_S) as on:
            _several(on, series, quick=quick)
    if options.wants("restart"):
        with _rig(folder / "restart", run_s=-1) as on:
            _restart(on, series, live=100 if quick else 5000)
    if options.wants("many"):
        with _rig(folder / "many", run_s=RUN_S) as on:
            _many(on, series, count=60 if quick else 10_000)
    return series.figures()


def _several(on: Rig, series: Series, *, quick: bool) -> None:
    for pool in SCALED:
        on.make_pool(pool, places=0)
    on.make_pool("probe", places=20)
    for rate, count in ((50, 30 if quick else 300), (200, 60 if quick else 600)):
        say(f"operator: {count} lives at {rate} writes/s")
        operator = on.start_operator(writes_per_s=rate, write_burst=rate, reconcilers=16)
        operator.wait_ready()
        _lives(on, operator, series, rate=rate, count=count, under_load=rate == 200)
        if rate == 200:
            _idle(on, series, samples=10 if quick else 40)
            _scale(on, series, samples=12 if quick else 100)
        operator.stop()


@contextmanager
def _rig(folder: Path, *, run_s: float) -> Iterator[Rig]:
    """An empty cluster with a node on paper, whose workers report a success before its Pods end."""
    folder.mkdir()
    with rig(folder) as on:
        on.cluster.play_nodes(run_s=run_s)
        on.start_workers(run_s=min(run_s, 0.2))
        on.make_pool("default", places=100)
        yield on


def _lives(
    on: Rig, operator: Operator, series: Series, *, rate: int, count: int, under_load: bool
) -> None:
    """All of them wait from the beginning on; the rate is until the last is deleted."""
    before, writes = len(_gone(on)), sum(operator.writes().values())
    began = time.time()
    probes: list[tuple[str, float]] = []
    on.submit(count)
    while len(_gone(on)) - before < count + len(probes):
        if under_load and len(_gone(on)) - before < count * 0.8:
            probes += on.submit(1, pool="probe")
        time.sleep(0.5)
    lives = count + len(probes)
    took_s = max(_gone(on).values()) - began
    series.add(f"life cycles at {rate} writes/s", lives / took_s, unit="/s")
    writes = sum(operator.writes().values()) - writes
    series.add("operator writes a job", writes / lives, unit="")
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
    """
    One place in a closed pool whose jobs wait, until the Pod for it is there, while another pool
    is kept busy. SCALED take turns: while the Pod of one runs and ends, the next is opened.
    """
    say("operator: scale, under load")
    each = math.ceil(samples / len(SCALED))
    pods = {pool: {f"{name}-a1" for name, _ in on.submit(each, pool=pool)} for pool in SCALED}
    opened = dict.fromkeys(SCALED, 0)
    waits: list[float] = []
    for pool in itertools.islice(itertools.cycle(SCALED), samples):
        _keep_busy(on, besides=len(SCALED) * each - len(waits))
        on.wait_for("its last Pod", lambda: _ended(on, pods[pool]) == opened[pool])  # noqa: B023
        asked = time.time()
        on.scale(pool, 1)
        opened[pool] += 1
        on.wait_for("a Pod", lambda: len(pods[pool] & _pods(on)) == opened[pool])  # noqa: B023
        on.scale(pool, 0)
        waits.append(max(at for (_, name), at in on.seen().items() if name in pods[pool]) - asked)
    _percentiles(series, "kubectl scale → Pod created, under load", waits)


def _keep_busy(on: Rig, *, besides: int) -> None:
    if on.statuses().get("queued", 0) < besides + BUSY:
        on.submit(2 * BUSY)


def _ended(on: Rig, pods: set[str]) -> int:
    return len({f"{name}-a1" for name in _gone(on)} & pods)


def _many(on: Rig, series: Series, *, count: int) -> None:
    say(f"operator: {count} lives without a limit of writes")
    operator = on.start_operator(writes_per_s=5000, write_burst=5000, reconcilers=32)
    operator.wait_ready()
    before = len(_gone(on))
    submitted, began = 0, time.monotonic()
    resident: list[float] = []
    while (done := len(_gone(on)) - before) < count:
        if submitted < count and submitted - done < 200:  # a long queue is MySQL's memory, not ours
            on.submit(some := min(100, count - submitted))
            submitted += some
        if done * 10 >= count * (len(resident) + 1):  # after each tenth
            resident.append(operator.rss_mb())
        time.sleep(0.2)
    resident.append(operator.rss_mb())
    series.add(
        "life cycles without a limit of writes", count / (time.monotonic() - began), unit="/s"
    )
    series.add("lives in one process", float(count), unit="")
    half = len(resident) // 2
    grown = max(resident[half:]) - max(resident[:half])
    series.add("grown over the second half of them", grown, unit="MB")
    series.add("resident then", resident[-1], unit="MB")
    operator.stop()


def _restart(on: Rig, series: Series, *, live: int) -> None:
    say(f"operator: {live} live jobs")
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
    series.add(f"{name}, p99", ordered[math.ceil(len(ordered) * 0.99) - 1], unit="s")
