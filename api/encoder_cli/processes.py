"""Put the parts of each process together: settings in, threads up, a clean end."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from uuid import uuid4

from sqlalchemy.exc import OperationalError

from encoder_api.app import create_app
from encoder_api.auth import check_exposure
from encoder_api.server import ApiServer
from encoder_api.settings import ApiSettings
from encoder_api.webhooks.sender import Sender
from encoder_api.webhooks.settings import WebhookSettings
from encoder_cli.probes import serve_probes
from encoder_core import logs
from encoder_core.egress import Dialler
from encoder_core.errors import ConfigurationError
from encoder_core.reports import AmbientCredentials
from encoder_db import keys
from encoder_db.migrations import migrate
from encoder_db.retention import delete_old_jobs
from encoder_db.settings import (
    AttemptSettings,
    DatabaseSettings,
    QueueSettings,
    SecretSettings,
    TransferSettings,
)
from encoder_db.store import Store, make_folder, open_store, take_file_lock
from encoder_local.housekeeping import Housekeeper
from encoder_local.order import OrderContext
from encoder_local.runner import LocalRunner
from encoder_local.scratch import Scratch
from encoder_local.settings import LocalSettings

log = logging.getLogger("encoder")


def run_up(*, host: str | None, port: int | None) -> None:
    """The unified app: until SIGTERM or Ctrl-C."""
    settings = api_settings(host, port)
    with opened_store(alone=True) as store, ExitStack() as stack:
        server = bind(settings, store)
        stack.callback(server.close)  # a setting of another part may be wrong
        crew = Crew(on_crash=server.stop)
        hire_runner(crew, store, stack)
        hire_sender(crew, store)
        # The outer one lasts until the workers have ended: a second Ctrl-C must not cut that short.
        with on_signals(server.stop), crew:
            serve(server)
    crew.raise_if_crashed()


def run_api(*, host: str | None, port: int | None) -> None:
    settings = api_settings(host, port)
    with opened_store(shared_by="encoder api") as store:
        serve(bind(settings, store))


def run_worker() -> None:
    """The legacy worker: the local runner, and the webhook sender, which has no process there."""
    with opened_store(shared_by="encoder worker") as store, ExitStack() as stack:
        crew = Crew(on_crash=lambda: os.kill(os.getpid(), signal.SIGTERM))
        hire_runner(crew, store, stack)
        hire_sender(crew, store)
        crew.work_until_signal()


def run_webhooks() -> None:
    with opened_store(shared_by="encoder webhooks") as store:
        crew = Crew(on_crash=lambda: os.kill(os.getpid(), signal.SIGTERM))
        sender = hire_sender(crew, store)
        port = WebhookSettings().health_port
        with serve_probes(port, unwell=sender.unwell, unready=sender.unready):
            crew.work_until_signal()


def run_retention(*, hours: int | None) -> int:
    kept_h = QueueSettings().retention_hours if hours is None else hours
    with opened_store() as store:
        return delete_old_jobs(store, older_than_h=kept_h)


# --- Parts -----------------------------------------------------------------------------------


def api_settings(host: str | None, port: int | None) -> ApiSettings:
    given = {"host": host, "port": port}
    return ApiSettings().model_copy(
        update={name: value for name, value in given.items() if value is not None}
    )


def bind(settings: ApiSettings, store: Store) -> ApiServer:
    """The API on its socket. Raises ConfigurationError when it would be open to strangers."""
    with store.read() as tx:
        check_exposure(settings, keys_exist=keys.has_keys(tx))
    return ApiServer(
        create_app(settings, store),
        host=settings.host,
        port=settings.port,
        drain_s=settings.drain_s,
        shutdown_s=settings.shutdown_s,
    )


def serve(server: ApiServer) -> None:
    """Until SIGTERM or Ctrl-C."""
    with on_signals(server.stop):
        server.run(ready=lambda: log.info("listening", extra={"url": server.url}))


@contextmanager
def on_signals(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` on SIGTERM and Ctrl-C. In the main thread only."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: act()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def opened_store(
    *, alone: bool = False, shared_by: str | None = None, keys_may_be_lost: bool = False
) -> Iterator[Store]:
    """
    The database of the settings, with its schema brought up to date.

    `alone`: this process owns a SQLite file. `shared_by` names a process that needs MySQL, since
    several processes work on the same jobs.
    """
    database, secrets = DatabaseSettings(), SecretSettings()
    logs.configure_logging(
        secrets=[
            secret.get_secret_value()
            for secret in (
                *(database.mysql_password, secrets.secret_key, secrets.webhook_secret),
                ApiSettings().api_key,
            )
            if secret is not None and secret.get_secret_value()
        ]
    )
    if shared_by is not None and database.is_sqlite:
        raise ConfigurationError(
            f"`{shared_by}` shares its jobs with other processes and needs MySQL: set MYSQL_HOST "
            "(and MYSQL_USER, MYSQL_PASSWORD, MYSQL_DATABASE), or run `encoder up` instead"
        )
    with open_store(database, secrets, exclusive=alone) as store:
        try:
            migrate(store, keys_may_be_lost=keys_may_be_lost)
        except OperationalError as error:
            raise ConfigurationError(f"{_where(database)}: {_why(error)}") from error
        yield store


def _where(database: DatabaseSettings) -> str:
    if database.is_sqlite:
        return f"cannot use the database in {database.data_dir} (ENCODER_DATA_DIR)"
    return (
        f"cannot use MySQL at {database.mysql_host} port {database.mysql_port}, database "
        f"{database.mysql_database}, as {database.mysql_user} (MYSQL_HOST, MYSQL_PORT, "
        "MYSQL_DATABASE, MYSQL_USER, MYSQL_PASSWORD)"
    )


def _why(error: OperationalError) -> str:
    """The server's words, without the statement."""
    return str(error.orig.args[-1] if error.orig is not None and error.orig.args else error)


def hire_runner(crew: Crew, store: Store, stack: ExitStack) -> None:
    """The local runner and its housekeeper. The data folder is ours until `stack` is left."""
    data_dir = make_folder(DatabaseSettings().data_dir.resolve())
    stack.enter_context(take_file_lock(data_dir / "runner.lock"))
    transfer, settings, local = TransferSettings(), QueueSettings(), LocalSettings()
    runner = LocalRunner(
        store,
        worker=worker_name(data_dir / "worker-id"),
        capacity=local.concurrency,
        settings=settings,
        scratch=Scratch(data_dir / "scratch"),
        context=OrderContext(
            files_root=transfer.files_root.resolve() if transfer.files_root else None,
            allowed_cidrs=transfer.allowed_cidrs,
            denied_cidrs=transfer.denied_cidrs,
            ambient=AmbientCredentials(
                buckets=list(transfer.s3_ambient_buckets)
                if transfer.s3_ambient_buckets is not None
                else None
            ),
            limits=AttemptSettings().limits(deadline_s=local.deadline_s),
        ),
    )
    crew.hire("runner", runner.run, runner.wake)
    housekeeper = Housekeeper(store, retention_hours=settings.retention_hours)
    crew.hire("housekeeper", housekeeper.run, lambda: None)


def hire_sender(crew: Crew, store: Store) -> Sender:
    transfer = TransferSettings()
    sender = Sender(store, dialler=Dialler(transfer.allowed_cidrs, transfer.denied_cidrs))
    crew.hire("sender", sender.run, sender.wake)
    return sender


def worker_name(path: os.PathLike[str]) -> str:
    """This installation's name as a worker: kept in its data folder, the same after a restart."""
    try:
        with open(path, "x", encoding="ascii") as file:
            file.write(uuid4().hex[:12])
    except FileExistsError:
        pass
    with open(path, encoding="ascii") as file:
        return f"local-{file.read().strip()}"


class Crew:
    """Threads that work until they are told to stop. One that crashes stops the whole process."""

    def __init__(self, *, on_crash: Callable[[], None]) -> None:
        self._on_crash = on_crash
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._wakes: list[Callable[[], None]] = []
        self._crash: Exception | None = None

    def hire(
        self, name: str, work: Callable[[threading.Event], None], wake: Callable[[], None]
    ) -> None:
        def run() -> None:
            try:
                work(self._stop)
            except Exception as error:  # whatever it is: a process that limps must not look alive
                log.exception("thread_crashed", extra={"thread_name": name})
                self._crash = error
                self._on_crash()

        self._threads.append(threading.Thread(target=run, name=name))
        self._wakes.append(wake)

    def work_until_signal(self) -> None:
        """Work until SIGTERM, Ctrl-C or a crash."""
        signaled = threading.Event()
        with on_signals(signaled.set), self:
            signaled.wait()
        self.raise_if_crashed()

    def raise_if_crashed(self) -> None:
        if self._crash is not None:
            raise SystemExit(1)

    def __enter__(self) -> Crew:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for wake in self._wakes:
            wake()
        for thread in self._threads:
            thread.join()
