"""The service as its users run it: real processes, their settings, and a small client."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from sqlalchemy import make_url

from tests.servers.process import ServerFailed, free_port
from tests.servers.webhooks import SECRET

READY_S = 60.0
POLL_S = 0.05  # the API has no other way to tell a client without webhooks
FINAL = {"completed", "failed", "canceled"}


def settings_for(database_url: str, folder: Path) -> dict[str, str]:
    """An environment of our own: nothing of the machine's settings leaks in."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MYSQL_", "ENCODER_", "QUEUE_", "AWS_", "RETENTION_"))
        # Compiled once, our modules start every further process of the suite faster.
        and name != "PYTHONDONTWRITEBYTECODE"
    }
    environment |= {
        "HOME": str(folder),
        "ENCODER_HOST": "127.0.0.1",
        "ENCODER_AUTH": "off",
        "ENCODER_DATA_DIR": str(folder / "data"),
        "ENCODER_FILES_ROOT": str(folder / "files"),
        "ENCODER_WEBHOOK_SECRET": SECRET,
        "ENCODER_LOCAL_CONCURRENCY": "2",
        # The servers of the tests are on loopback, where no user's host ever is.
        "ENCODER_EGRESS_ALLOWED_CIDRS": "127.0.0.0/8",
        "QUEUE_POLL_INTERVAL_MS": "100",
        # No role to ask for: the metadata service of a cloud would be waited for.
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    url = make_url(database_url)
    if url.get_backend_name() == "mysql":
        environment |= {
            "MYSQL_HOST": url.host or "",
            "MYSQL_PORT": str(url.port),
            "MYSQL_USER": url.username or "",
            "MYSQL_PASSWORD": str(url.password or ""),
            "MYSQL_DATABASE": url.database or "",
        }
    return environment


@dataclass
class Service:
    """One `encoder` process. Start it, kill it, start it again: its folder and port stay."""

    folder: Path
    settings: dict[str, str]
    database_url: str
    command: tuple[str, ...] = ("up",)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with every request: an API key, where one is asked for."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def files(self) -> Path:
        return self.folder / "files"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.command[0]}.log"

    def start(self, *, ready: Callable[[], bool] | None = None) -> None:
        self.files.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "encoder_cli", *self.command],
                env={**self.settings, "PORT": str(self.port)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_until(ready or self._answers)

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        """SIGKILL, to this one process and not to its children."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.kill()

    # --- The client ----------------------------------------------------------------------------

    def post(self, path: str, body: Any, **options: Any) -> requests.Response:
        options["headers"] = self.headers | options.get("headers", {})
        return requests.post(self.url + path, json=body, timeout=30, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        options["headers"] = self.headers | options.get("headers", {})
        return requests.get(self.url + path, timeout=30, **options)

    def patch(self, path: str, body: Any) -> requests.Response:
        return requests.patch(self.url + path, json=body, headers=self.headers, timeout=30)

    def delete(self, path: str) -> requests.Response:
        return requests.delete(self.url + path, headers=self.headers, timeout=30)

    def submit(self, request: Mapping[str, Any]) -> int:
        """The number of the accepted job."""
        response = self.post("/jobs", request)
        assert response.status_code == 202, response.text
        number: int = response.json()["id"]
        return number

    def job(self, number: int) -> dict[str, Any]:
        response = self.get(f"/jobs/{number}")
        assert response.status_code == 200, response.text
        document: dict[str, Any] = response.json()
        return document

    def wait_for(
        self, number: int, condition: Callable[[dict[str, Any]], bool], *, timeout_s: float = 90
    ) -> dict[str, Any]:
        """The job as soon as the condition holds."""
        deadline = time.monotonic() + timeout_s
        while True:
            job = self.job(number)
            if condition(job):
                return job
            if time.monotonic() > deadline:
                raise AssertionError(f"not in {timeout_s} s: {job}\n{self.log_tail()}")
            time.sleep(POLL_S)

    def run(self, request: Mapping[str, Any], *, timeout_s: float = 90) -> dict[str, Any]:
        """Submit a job and wait for its end."""
        return self.wait_for(
            self.submit(request), lambda job: job["status"] in FINAL, timeout_s=timeout_s
        )

    def log_tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])

    def _answers(self) -> bool:
        return self.get("/readyz").ok

    def _wait_until(self, ready: Callable[[], bool]) -> None:
        assert self.process is not None
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if ready():
                    return
            except requests.ConnectionError:
                pass
            time.sleep(POLL_S)
        raise ServerFailed(f"encoder {self.command[0]} did not start:\n{self.log_tail()}")


@contextmanager
def encoder_up(database_url: str, folder: Path, **settings: str) -> Iterator[Service]:
    """The unified app, running."""
    environment = settings_for(database_url, folder) | settings
    with Service(folder, environment, own_database(database_url, folder)) as service:
        service.start()
        yield service


def own_database(database_url: str, folder: Path) -> str:
    """Where the service keeps its record: a SQLite file is in its data folder."""
    if database_url.startswith("sqlite"):
        return f"sqlite:///{folder / 'data' / 'encoder.db'}"
    return database_url
