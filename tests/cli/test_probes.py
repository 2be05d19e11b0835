"""Whether the webhook sender lives and sends, as the kubelet asks it."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event

from encoder_api.webhooks.sender import AWAY_S, STUCK_S, Sender
from encoder_cli.probes import Why, serve_probes
from encoder_core.egress import Dialler
from encoder_core.sealing import KeyRing
from encoder_db.migrations import migrate
from encoder_db.store import Store


class StillClock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@contextmanager
def probes(*, unwell: Why, unready: Why) -> Iterator[http.client.HTTPConnection]:
    with serve_probes(0, unwell=unwell, unready=unready) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            yield connection
        finally:
            connection.close()


def get(connection: http.client.HTTPConnection, path: str) -> tuple[int, str]:
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_each_path_says_what_it_is_asked_for_and_why_not() -> None:
    said: dict[str, str | None] = {"unwell": None, "unready": "the database does not answer"}
    with probes(unwell=lambda: said["unwell"], unready=lambda: said["unready"]) as asked:
        assert get(asked, "/livez") == (200, "ok\n")
        assert get(asked, "/readyz") == (503, "the database does not answer\n")
        said.update(unwell="the loop stands still", unready=None)
        assert get(asked, "/livez") == (503, "the loop stands still\n")
        assert get(asked, "/readyz") == (200, "ok\n")
        assert get(asked, "/metrics")[0] == 404


def test_who_takes_long_to_ask_is_cut_off_whatever_comes() -> None:
    with (
        serve_probes(0, unwell=lambda: None, unready=lambda: None, request_s=1) as port,
        socket.create_connection(("127.0.0.1", port), timeout=0.1) as slow,
    ):
        slow.sendall(b"GET /livez HTTP/1.1\r\nX: ")
        for _ in range(600):
            try:
                slow.sendall(b"x")
                answer = slow.recv(1)
            except TimeoutError:
                continue  # still open
            except ConnectionError:
                answer = b""
            break
        else:
            pytest.fail("the connection stays open as long as something comes")
        assert answer == b""


def test_without_a_port_nothing_listens() -> None:
    before = threading.active_count()
    with serve_probes(None, unwell=lambda: None, unready=lambda: None) as port:
        assert port is None
        assert threading.active_count() == before


# --- What the sender says ------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path}/encoder.db", keys=KeyRing([b"k" * 32])) as store:
        migrate(store)
        yield store


@contextmanager
def sending(sender: Sender) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=sender.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        sender.wake()
        thread.join(60)
        assert not thread.is_alive()


def test_it_is_ready_while_the_database_answers_and_alive_while_its_loop_turns(
    store: Store,
) -> None:
    clock = StillClock()
    sender = Sender(store, dialler=Dialler(()), clock=clock)
    asked, away = threading.Event(), threading.Event()

    def answer(*_: object) -> None:
        asked.set()
        if away.is_set():
            raise ConnectionError("away")

    for engine in {store.engine, store.reads}:
        event.listen(engine, "before_cursor_execute", answer)

    def until(want: str | None) -> None:
        while sender.unready() != want:
            asked.clear()
            assert asked.wait(60)

    with sending(sender):
        assert asked.wait(60)
        until(None)
        away.set()
        clock.now += AWAY_S + 1
        until("the database does not answer")
        assert sender.unwell() is None
        away.clear()
        until(None)


def test_one_whose_loop_stands_still_is_not_alive(store: Store) -> None:
    clock = StillClock()
    sender = Sender(store, dialler=Dialler(()), clock=clock)
    clock.now += STUCK_S + 1  # nobody runs it
    assert sender.unwell() == "the loop stands still"
    assert sender.unready() is not None
