"""The API and the sender of webhooks die at each step of a request and of a delivery."""

from __future__ import annotations

import base64
import signal
import time
from collections.abc import Callable
from pathlib import Path

import requests

from encoder_db.fsck import fsck
from encoder_db.jobs import list_jobs
from encoder_db.store import Store
from tests.db import builders as make
from tests.db.conftest import empty
from tests.figures import tell_figure
from tests.kill.actors import SECRET_KEY, send_webhooks, serve_api, spawn, work_off
from tests.kill.conftest import FULL
from tests.servers.process import free_port
from tests.servers.webhooks import WebhookReceiver
from tests.system.service import settings_for

POLL_S = 0.02  # a process says by no other means that it listens or that it died
PATIENCE_S = 60.0


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(POLL_S)


API_STEPS = range(1, 12) if FULL else (1, 4, 8, 9)
"""Of the transaction of a POST: before its first statement, within, before and after its commit."""


def test_the_api_is_killed_at_each_step_of_a_post(store: Store, url: str, tmp_path: Path) -> None:
    settings = settings_for(url, tmp_path) | {
        "PORT": str(free_port()),
        "ENCODER_SECRET_KEY": base64.b64encode(SECRET_KEY).decode(),
    }
    address = f"http://127.0.0.1:{settings['PORT']}"

    def is_ready() -> bool:
        try:
            return requests.get(f"{address}/readyz", timeout=5).ok
        except requests.ConnectionError:
            return False

    acknowledged: dict[str, int] = {}
    killed = 0
    for turn, step in enumerate([*API_STEPS, None]):
        process = spawn(serve_api, settings, step)
        try:
            _until(lambda process=process: not process.is_alive() or is_ready())  # type: ignore[misc]  # mypy infers no type for a lambda's default
            # Those that got no answer before ask again; then one that nobody asked for yet.
            for name in [f"job-{number}" for number in range(turn + 1)]:
                if name in acknowledged:
                    continue
                try:
                    acknowledged[name] = _post(address, name)
                except requests.ConnectionError:
                    process.join(PATIENCE_S)
                    killed += process.exitcode == -signal.SIGKILL
                    break
        finally:
            process.kill()
            process.join()
    names = [f"job-{number}" for number in range(len(API_STEPS) + 1)]
    with store.read() as tx:
        present = [job.external_id for job in list_jobs(tx, owner=None)]
    lost = set(acknowledged) - set(present)
    doubled = len(present) - len(set(present))
    tell_figure(
        f"API killed at {killed} steps of a POST: enqueues acknowledged {len(acknowledged)}, "
        f"present {len(present)}, lost {len(lost)}, doubled {doubled}"
    )
    assert killed >= 4  # the full run goes beyond the last step of a POST
    assert (sorted(acknowledged), lost, doubled) == (sorted(names), set(), 0)
    assert fsck(store).findings == []


def _post(address: str, name: str) -> int:
    asked = make.spec().model_dump(mode="json", by_alias=True, exclude_none=True)
    response = requests.post(
        f"{address}/jobs",
        json=asked | {"externalId": name},
        headers={"Idempotency-Key": name},
        timeout=30,
    )
    assert response.status_code == 202, response.text
    number: int = response.json()["id"]
    return number


SENDER_STEPS = range(1, 41) if FULL else (1, 2, 5, 9, 13, 16)
"""The first event is sent before the tenth, and its answer committed at the seventeenth."""


def test_the_sender_is_killed_at_each_step_and_every_event_arrives_in_order(
    store: Store, url: str
) -> None:
    killed = again = 0
    for step in SENDER_STEPS:
        empty(store.engine)
        with WebhookReceiver() as receiver:
            make.create(store, make.spec(notificationUrl=f"{receiver.url}/hook"))
            work_off(store, "w")
            killed += _dies_sending(store, url, step)
            make.let_pass(store, 120)  # its leases
            assert not _dies_sending(store, url, None)
            arrived = [delivery.body["sequence"] for delivery in receiver.deliveries]
            ids = {delivery.id for delivery in receiver.deliveries}
            refused = [delivery for delivery in receiver.deliveries if delivery.refused]
        assert list(dict.fromkeys(arrived)) == [1, 2, 3, 4, 5], f"killed at step {step}"
        assert (len(ids), refused) == (5, []), f"killed at step {step}"
        assert fsck(store).findings == [], f"killed at step {step}"
        again += len(arrived) - len(ids)
    tell_figure(
        f"sender killed at {killed} of {len(SENDER_STEPS)} steps: events {5 * len(SENDER_STEPS)}, "
        f"lost 0, sent again {again}"
    )
    assert killed == len(SENDER_STEPS)
    assert again  # by those that died between an answer and its record


def _dies_sending(store: Store, url: str, step: int | None) -> bool:
    """Whether the sender was killed at that step, before nothing was left to send."""
    sender = spawn(send_webhooks, url, step)
    try:
        _until(lambda: not sender.is_alive() or not make.count(store, "webhook_deliveries"))
        return sender.exitcode == -signal.SIGKILL
    finally:
        sender.kill()
        sender.join()
