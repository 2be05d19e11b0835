"""
The processes that are killed: each a child of its own, forked from a server that has everything
loaded, so that a kill costs a tenth of a second and a hundred of them a few.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError

from encoder_api.webhooks.sender import Sender
from encoder_cli.processes import run_api
from encoder_core.egress import Dialler
from encoder_core.errors import Refused
from encoder_core.sealing import KeyRing
from encoder_core.states import FINAL_JOB
from encoder_db.attempts import mark_starting, open_attempt
from encoder_db.jobs import cancel_job, delete_job, list_jobs, retry_job
from encoder_db.queue import Engine, QueueMessage
from encoder_db.store import Store
from tests.db import builders as make
from tests.kill.steps import Steps
from tests.servers.webhooks import SECRET

SECRET_KEY = b"k" * 32
KEYS = KeyRing([SECRET_KEY])
OWNERS = ("acme", "beta", "corp")
PAUSE_S = 0.02  # a claimer that found nothing asks again; a server that is being started too

FORK = get_context("forkserver")
FORK.set_forkserver_preload(["tests.kill.actors", "tests.kill.lives", "tests.kill.chores"])

T = TypeVar("T")
Act = Callable[[Store], object]


def spawn(work: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    process = FORK.Process(target=work, args=arguments, daemon=True)
    process.start()
    return process


def opened(url: str) -> Store:
    return Store.open(url, keys=KEYS, webhook_secret=SECRET)


# --- One act, killed at one of its steps -------------------------------------------------------


def act_and_die(url: str, act: Act, kill_at: int | None, counted: Connection) -> None:
    """Do something; die at that step. Whoever survives says how many steps there were."""
    steps = Steps(kill_at=kill_at)
    with opened(url) as store:
        act(store)
    counted.send(steps.count)


def run_act(url: str, act: Act, *, kill_at: int | None = None) -> int | None:
    """The number of its steps; None when it was killed."""
    here, there = FORK.Pipe(duplex=False)
    process = spawn(act_and_die, url, act, kill_at, there)
    there.close()
    process.join(60)
    assert process.exitcode in (0, -9), f"{act} ended with {process.exitcode}"
    return here.recv() if process.exitcode == 0 else None


def live(store: Store, message: QueueMessage, worker: str, engine: Engine) -> None:
    """One attempt as an executor and its worker go through it, when all goes well."""
    claimed = open_attempt(
        store, message, executor=engine, worker=worker, limit=100, limits=make.LIMITS
    )
    if not isinstance(claimed, make.Claimed) or not mark_starting(store, claimed):
        return
    make.say(store, claimed, make.Started())
    make.say(store, claimed, make.progress())
    for item in make.read(store, claimed.job).outputs:
        make.say(store, claimed, make.uploaded(item.index))
    make.say(store, claimed, make.succeeded())
    make.finish(store, claimed)


def work_off(store: Store, worker: str, engine: Engine = "local") -> int:
    """Take what is due until nothing is; the number of messages taken."""
    taken = 0
    while messages := make.claim_some(store, 3, worker=worker, engine=engine):
        for message in messages:
            live(store, message, worker, engine)
        taken += len(messages)
    return taken


# --- Many at once ------------------------------------------------------------------------------


def produce(url: str, name: str, count: int, acknowledged: Connection) -> None:
    """Create jobs, each under a name of its own; say each name once it is accepted."""
    with opened(url) as store:
        for number in range(count):
            wanted = f"{name}-{number}"
            insist(lambda wanted=wanted: _create(store, wanted))  # type: ignore[misc]  # mypy infers no type for a lambda's default
            acknowledged.send(wanted)


def _create(store: Store, name: str) -> None:
    try:
        make.create(
            store, make.spec(externalId=name, source=make.s3()), owner=OWNERS[len(name) % 3]
        )
    except Refused as refused:
        if refused.code != "external_id_taken":
            raise  # else an earlier try of ours was accepted, and its answer never came


def consume(url: str, name: str) -> None:
    """Claim and run, for ever: the test ends it."""
    with opened(url) as store:
        while True:
            if not insist(lambda: work_off(store, name)):
                time.sleep(PAUSE_S)


def disturb(url: str, seed: int) -> None:
    """Cancel, retry and delete whatever is there, for ever."""
    chance = random.Random(seed)
    with opened(url) as store:

        def meddle() -> None:
            with store.read() as tx:
                found = list_jobs(tx, owner=None, limit=50)
            if not found:
                return
            job = chance.choice(found)
            if job.status in FINAL_JOB:
                try:
                    retry_job(store, job.id, owner=None, secrets=SECRETS)
                except Refused:
                    return
            elif chance.random() < 0.8:
                cancel_job(store, job.id, owner=None)
            else:
                delete_job(store, job.id, owner=None)

        while True:
            insist(meddle)
            time.sleep(PAUSE_S)


SECRETS: Mapping[str, str] = {
    "/source/access_key_id": "AKIA",
    "/source/access_key_secret": "s3cr3t-value",
}


def insist(work: Callable[[], T]) -> T:
    """Until the database answers, as every process of the service does."""
    while True:
        try:
            return work()
        except DBAPIError as error:
            if not error.connection_invalidated and error.orig.__class__.__name__ not in (
                "OperationalError",
                "InterfaceError",
            ):
                raise
            time.sleep(PAUSE_S)


# --- Whole processes ---------------------------------------------------------------------------


def serve_api(settings: Mapping[str, str], kill_at: int | None) -> None:
    """`encoder api`, dying at that step of a POST."""
    os.environ.clear()
    os.environ.update(settings)
    Steps(kill_at=kill_at, armed_by="INSERT INTO jobs")
    run_api(host=None, port=None)


def send_webhooks(url: str, kill_at: int | None) -> None:
    """The sender, dying at that step after it found something; else until the test ends it."""
    Steps(kill_at=kill_at, armed_by="UPDATE webhook_deliveries")
    with opened(url) as store:
        Sender(store, dialler=Dialler(["127.0.0.0/8"])).run(threading.Event())
