"""The unified app ends in every way a process can end, and no job is lost, doubled or stuck."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import requests

from encoder_db.store import Store
from tests.db.builders import count
from tests.figures import tell_figure
from tests.servers.webhooks import WebhookReceiver
from tests.system.service import FINAL, Service, encoder_up, settings_for
from tests.system.test_contract import a_long_request, eventually

Clip = Callable[[str], Path]

CLIENTS, PROBE_S = 3, 0.05


def is_encoding(job: dict[str, Any]) -> bool:
    return (job["progress"] or {}).get("phase") == "encoding" and job["progress"]["percent"] > 1


def children_of(pid: int) -> list[int]:
    """Processes whose parent is `pid`, by the kernel's own lists: each thread has one."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for children in lists for child in children.read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_killed_in_the_middle_of_an_encode_the_job_ends_completed_once(
    database_url: str, tmp_path: Path, clip: Clip, webhook_receiver: WebhookReceiver
) -> None:
    with encoder_up(database_url, tmp_path) as service:
        hook = f"{webhook_receiver.url}/hook"
        number = service.submit(a_long_request(service, clip, notificationUrl=hook))
        service.wait_for(number, is_encoding)
        assert service.process is not None
        workers = worker_processes(service)
        service.kill()
        eventually(lambda: not any(map(is_alive, workers)), lambda: workers)
        service.start()
        job = service.wait_for(number, lambda job: job["status"] in FINAL)
        assert job["status"] == "completed", (job, service.log_tail())
        assert [attempt["status"] for attempt in job["attempts"]] == ["lost", "succeeded"]
        assert (service.files / "out.mp4").stat().st_size == job["outputs"][0]["result"][
            "sizeBytes"
        ]
        deliveries = webhook_receiver.wait_for(
            lambda seen: any(delivery.body["type"] == "job.completed" for delivery in seen)
        )
        types = [delivery.body["type"] for delivery in deliveries]
        assert types.count("job.completed") == types.count("output.uploaded") == 1
        assert service.stop() == 0


def is_reachable(service: Service) -> bool:
    try:
        return service.get("/readyz").ok
    except requests.ConnectionError:
        return False


def refuses(address: tuple[str, int]) -> bool:
    """Whether nobody listens there any more; one that is stopping still does at first."""
    try:
        socket.create_connection(address, timeout=30).close()
    except ConnectionError:
        return True
    return False


def worker_processes(service: Service) -> list[int]:
    assert service.process is not None
    workers = children_of(service.process.pid)
    assert workers
    return workers + [pid for worker in workers for pid in children_of(worker)]


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param([signal.SIGTERM], id="by SIGTERM"),
        pytest.param([signal.SIGINT, signal.SIGINT], id="by an impatient Ctrl-C"),
    ],
)
def test_told_to_stop_it_ends_its_workers_and_gives_the_job_back(
    sqlite_url: str, tmp_path: Path, clip: Clip, numbers: list[signal.Signals]
) -> None:
    with encoder_up(sqlite_url, tmp_path) as service:
        job_number = service.submit(a_long_request(service, clip))
        service.wait_for(job_number, is_encoding)
        workers = worker_processes(service)
        assert service.process is not None
        for number in numbers:
            os.kill(service.process.pid, number)
            eventually(lambda: not is_reachable(service), service.log_tail)
        assert service.process.wait(timeout=60) == 0
        assert not any(map(is_alive, workers))
        service.start()
        job = service.wait_for(job_number, lambda job: job["status"] in FINAL)
        assert job["status"] == "completed"
        # The machine wanted to stop: that is not charged to the job.
        assert [
            attempt["failure"]["code"] for attempt in job["attempts"] if attempt["failure"]
        ] == ["worker_interrupted"]


def test_a_post_that_is_under_way_when_the_api_is_told_to_stop_is_answered_and_kept(
    mysql_url: str, tmp_path: Path, clip: Clip
) -> None:
    settings = settings_for(mysql_url, tmp_path)
    with Service(tmp_path, settings, mysql_url, command=("api",)) as service:
        service.start()
        assert service.process is not None
        body = json.dumps(a_long_request(service, clip)).encode()
        head = (
            f"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
        )
        address = ("127.0.0.1", service.port)
        with socket.create_connection(address) as posting, requests.Session() as idle:
            posting.settimeout(30)
            posting.sendall(head.encode())
            assert posting.recv(1000).startswith(b"HTTP/1.1 100")  # it is being worked on
            assert idle.get(f"{service.url}/jobs", timeout=30).json()["jobs"] == []

            service.process.terminate()
            eventually(lambda: refuses(address), service.log_tail)
            for latecomer in (idle, requests):  # on a connection from before, and on its own
                with pytest.raises(requests.ConnectionError):
                    latecomer.post(f"{service.url}/jobs", json=json.loads(body), timeout=30)
            assert service.process.poll() is None

            posting.sendall(body)
            response = http.client.HTTPResponse(posting)
            response.begin()
            accepted = json.loads(response.read())
            assert (response.status, response.headers["connection"]) == (202, "close")
            assert service.process.wait(timeout=60) == 0
        service.start()
        assert [job["uuid"] for job in service.get("/jobs").json()["jobs"]] == [accepted["uuid"]]
        assert service.stop() == 0


class Replicas:
    """Clients that keep their connections, and send new ones to whoever says that it is ready."""

    def __init__(self, services: Sequence[Service]) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._ready: set[int] = set()
        self._connections: Counter[int] = Counter()
        self.answers: Counter[int] = Counter()
        self.failures: list[str] = []
        self.over = threading.Event()

    def probe(self) -> None:
        while not self.over.wait(PROBE_S):
            ready = {service.port for service in self._services if is_reachable(service)}
            with self._lock:
                self._ready = ready or self._ready  # the only one may be late, on a busy machine

    def send(self, body: bytes) -> None:
        """A job and a look at the list by turns, each once: nothing is tried again."""
        turns = cycle([("POST", "/jobs", body), ("GET", "/jobs?limit=1", b"")])
        while not self.over.is_set():
            with self._connected() as connection:
                while True:
                    method, path, content = next(turns)
                    headers = {"Content-Type": "application/json"} if content else {}
                    try:
                        connection.request(method, path, content or None, headers)
                        response = connection.getresponse()
                        response.read()
                    except (OSError, http.client.HTTPException) as error:
                        self.failures.append(f"{method} {path}: {error!r}")
                        break
                    with self._lock:
                        self.answers[response.status] += 1
                    if response.will_close or self.over.is_set():
                        break

    @contextmanager
    def _connected(self) -> Iterator[http.client.HTTPConnection]:
        with self._lock:
            port = random.choice(sorted(self._ready))
            self._connections[port] += 1
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            yield connection
        finally:
            connection.close()
            with self._lock:
                self._connections[port] -= 1

    def are_ready(self) -> bool:
        with self._lock:
            return len(self._ready) == len(self._services)

    def is_left(self, service: Service) -> bool:
        """It gets no new connections, and no client is connected to it any more."""
        with self._lock:
            return service.port not in self._ready and not self._connections[service.port]


def join_all(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.join()


def test_a_restart_of_one_api_after_the_other_under_load_fails_no_request(
    mysql_url: str, tmp_path: Path, clip: Clip
) -> None:
    settings = settings_for(mysql_url, tmp_path) | {"ENCODER_DRAIN_S": "60"}
    with ExitStack() as stack:
        services = [
            stack.enter_context(Service(tmp_path / name, settings, mysql_url, command=("api",)))
            for name in ("one", "other")
        ]
        for service in services:
            service.start()
            stack.callback(service.kill)  # at the end nobody needs to wait for a drain
        replicas = Replicas(services)
        body = json.dumps(a_long_request(services[0], clip)).encode()
        threads = [threading.Thread(target=replicas.probe)]
        threads[0].start()
        stack.callback(join_all, threads)
        stack.callback(replicas.over.set)
        eventually(replicas.are_ready, lambda: "not ready")
        for _ in range(CLIENTS):
            threads.append(threading.Thread(target=replicas.send, args=(body,)))
            threads[-1].start()
        for service in services:
            before = replicas.answers.total()
            assert service.process is not None
            service.process.terminate()
            eventually(lambda service=service: replicas.is_left(service), service.log_tail)  # type: ignore[misc]  # mypy infers no type for a lambda's default
            assert service.stop() == 0  # told twice, it does not wait for the drain to end
            service.start()
            eventually(replicas.are_ready, service.log_tail)
            assert replicas.answers.total() > before
        replicas.over.set()
        join_all(threads)
        accepted = Counter(replicas.answers)
        tell_figure(f"answers {accepted}")
        assert replicas.failures == []
        assert set(accepted) == {200, 202}
        with Store.open(mysql_url) as store:
            assert count(store, "jobs") == accepted[202]


def test_a_killed_worker_is_tried_again(sqlite_url: str, tmp_path: Path, clip: Clip) -> None:
    with encoder_up(sqlite_url, tmp_path) as service:
        number = service.submit(a_long_request(service, clip))
        service.wait_for(number, is_encoding)
        [worker, *_] = worker_processes(service)
        os.kill(worker, signal.SIGKILL)
        job = service.wait_for(number, lambda job: job["status"] in FINAL)
        assert job["status"] == "completed"
        assert len(job["attempts"]) == 2


def test_a_canceled_job_stops_its_worker_and_stays_canceled(
    sqlite_url: str, tmp_path: Path, clip: Clip
) -> None:
    with encoder_up(sqlite_url, tmp_path) as service:
        number = service.submit(a_long_request(service, clip))
        service.wait_for(number, is_encoding)
        workers = worker_processes(service)
        assert service.post(f"/jobs/{number}/cancel", None).ok
        job = service.wait_for(number, lambda job: job["status"] in FINAL)
        assert job["status"] == "canceled"
        eventually(lambda: not any(map(is_alive, workers)), lambda: workers)
        assert not (service.files / "out.mp4").exists()


def test_two_apps_cannot_share_a_sqlite_file(sqlite_url: str, tmp_path: Path) -> None:
    with encoder_up(sqlite_url, tmp_path) as service:
        second = Service(tmp_path, service.settings, service.database_url)
        with pytest.raises(Exception, match="another process works with"):
            second.start()
