"""
From a committed event to its receiver, by the real sender: how soon, and how many a second.

How many is asked of a backlog, beside bare POSTs of the same bodies to the same receivers. How soon
is asked at a quarter of that rate, twice in each round: of a healthy receiver alone, and of the
same one while others misbehave in every way that the tests know, each with more waiting for it than
a claim takes.
"""

from __future__ import annotations

import http.client
import math
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Figure, Options, Series, foreign_load, say
from encoder_api.webhooks.settings import WebhookSettings
from encoder_api.webhooks.signing import read_secrets, signed_headers
from encoder_core.specs import DEFAULT_OWNER, JobSpec
from encoder_db.intake import create_job
from encoder_db.migrations import migrate
from encoder_db.store import Store
from tests.servers.database import DatabaseServer
from tests.servers.mysql import mysql_server
from tests.servers.webhooks import MISBEHAVIOUR, SECRET, Delivery, WebhookReceiver
from tests.system.service import Service, settings_for

ROUNDS = 3
PHASE_S, QUICK_PHASE_S = 10.0, 2.0
QUARTER = 0.25  # the share of the highest rate at which latency is looked at
FOR_EACH_BAD = 12  # deliveries that wait for one that misbehaves: more than a claim takes
BACKLOG, QUICK_BACKLOG = 480, 96
RECEIVERS = 8  # among which a backlog is spread: one host is sent four at a time
PATIENCE_S = 120.0

P99 = "p99 of first attempts beside six that misbehave"
P99_ALONE = "p99 of first attempts alone"


@dataclass(frozen=True, slots=True)
class Place:
    """A database with nothing in it, and a sender of its own for as long as that is wanted."""

    store: Store
    service: Service

    @contextmanager
    def sending(self) -> Iterator[None]:
        with self.service as sender:
            sender.start(ready=lambda: True)
            yield

    def submit(self, receiver: WebhookReceiver) -> str:
        """One event for this receiver, committed when this returns; its job's uuid."""
        spec = JobSpec.model_validate(
            {
                "source": {"kind": "https", "url": "https://media.example/in.mp4"},
                "outputs": [{"destination": {"kind": "https", "url": "https://media.example/o"}}],
                "notificationUrl": f"{receiver.url}/hook",
            }
        )
        keys = self.store.keys
        job = self.store.run(lambda tx: create_job(tx, spec=spec, owner=DEFAULT_OWNER, keys=keys))
        return str(job.uuid)


def run(options: Options, folder: Path) -> Iterable[Figure]:
    series = Series(goals={P99: "≤ 1"})
    seconds = QUICK_PHASE_S if options.quick else PHASE_S
    backlog = QUICK_BACKLOG if options.quick else BACKLOG
    (folder / "mysql").mkdir()
    with mysql_server(folder / "mysql") as server:
        say(f"  {server.version}, which waits for no disk")
        for number in range(options.rounds_or(ROUNDS)):
            say(f"  round {number + 1}")
            with foreign_load() as load:
                with ready(server, folder) as place:
                    sent_per_s, bare_per_s = drain(place, backlog)
                for beside in (True, False) if number % 2 else (False, True):
                    with ready(server, folder) as place:
                        took_s = first_attempts(
                            place, seconds, per_s=sent_per_s * QUARTER, beside=beside
                        )
                    name = "beside six that misbehave" if beside else "alone"
                    for share in (0.5, 0.99):
                        label = f"p{share * 100:.0f} of first attempts {name}"
                        series.add(label, percentile(took_s, share), unit="s")
            series.add(f"deliveries of a backlog, {RECEIVERS} receivers", sent_per_s, unit="/s")
            series.add("the same ÷ bare POSTs", sent_per_s / bare_per_s)
            # MySQL is no child of this process that has ended when the block does.
            series.add("taken by MySQL and others meanwhile", load.foreign_cores, unit="cores")
    return series.figures()


@contextmanager
def ready(server: DatabaseServer, folder: Path) -> Iterator[Place]:
    with (
        server.fresh_database() as database,
        Store.open(database.url, webhook_secret=SECRET) as store,
    ):
        migrate(store)
        settings = settings_for(database.url, folder)
        yield Place(store, Service(folder, settings, database.url, command=("webhooks",)))


def first_attempts(place: Place, seconds: float, *, per_s: float, beside: bool) -> list[float]:
    """For each event of a healthy receiver, from its commit until it arrived."""
    with ExitStack() as stack:
        healthy = stack.enter_context(WebhookReceiver())
        bad = []
        for answer in MISBEHAVIOUR.values() if beside else ():
            receiver = stack.enter_context(WebhookReceiver())
            receiver.answer("/hook", *[answer] * FOR_EACH_BAD * 10)
            bad.append(receiver)
        for _ in range(FOR_EACH_BAD):
            for receiver in bad:
                place.submit(receiver)
        stack.enter_context(place.sending())
        for receiver in bad:
            receiver.wait_for(1, timeout_s=PATIENCE_S)
        place.submit(healthy)  # statements are compiled once a process
        healthy.wait_for(1, timeout_s=PATIENCE_S)
        committed = dict(submitted(place, healthy, seconds, per_s=per_s))
        arrived = first_of_each(healthy.wait_for(1 + len(committed), timeout_s=PATIENCE_S))
    return [max(0.0, arrived[job] - at) for job, at in committed.items()]


def submitted(
    place: Place, receiver: WebhookReceiver, seconds: float, *, per_s: float
) -> Iterator[tuple[str, float]]:
    """Events at their instants, and when each was committed."""
    began = time.monotonic()
    for number in range(max(1, int(seconds * per_s))):
        time.sleep(max(0.0, began + number / per_s - time.monotonic()))
        job = place.submit(receiver)
        yield job, time.monotonic()


def first_of_each(deliveries: Sequence[Delivery]) -> dict[str, float]:
    arrived: dict[str, float] = {}
    for delivery in deliveries:
        arrived.setdefault(delivery.body["data"]["uuid"], delivery.at)
    return arrived


def drain(place: Place, count: int) -> tuple[float, float]:
    """Deliveries a second of what waits when the sender starts, and bare POSTs of the same."""
    with ExitStack() as stack:
        receivers = [stack.enter_context(WebhookReceiver()) for _ in range(RECEIVERS)]
        for number in range(count):
            place.submit(receivers[number % RECEIVERS])
        with place.sending():
            arrived = [
                delivery
                for receiver in receivers
                for delivery in receiver.wait_for(count // RECEIVERS, timeout_s=PATIENCE_S)
            ]
        times = sorted(delivery.at for delivery in arrived)
        sent_per_s = (len(times) - 1) / (times[-1] - times[0])
        bare_per_s = post_all([(receiver, one.raw) for receiver in receivers
                               for one in receiver.deliveries])  # fmt: skip
    return sent_per_s, bare_per_s


def post_all(bodies: Sequence[tuple[WebhookReceiver, bytes]]) -> float:
    """POSTs a second of who only signs and sends, with as many threads as the sender has."""
    secrets = read_secrets(SECRET)
    left: queue.SimpleQueue[tuple[WebhookReceiver, bytes]] = queue.SimpleQueue()
    for body in bodies:
        left.put(body)

    def post() -> None:
        while True:
            try:
                receiver, body = left.get_nowait()
            except queue.Empty:
                return
            signed = signed_headers(
                secrets, message_id="bare", timestamp=int(time.time()), body=body
            )
            connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=30)
            connection.request("POST", "/hook", body=body, headers=signed)
            connection.getresponse().read()
            connection.close()

    threads = [threading.Thread(target=post) for _ in range(WebhookSettings().concurrency)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(bodies) / (time.monotonic() - began)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]
