"""The API over SQLite, and a client that holds every answer against the OpenAPI document."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from starlette.applications import Starlette
from starlette.testclient import TestClient

from encoder_api.app import create_app
from encoder_api.settings import ApiSettings
from encoder_core.clock import Clock
from encoder_core.sealing import KeyRing
from encoder_db.keys import create_key
from encoder_db.migrations import migrate
from encoder_db.store import Store

KEYS = KeyRing([bytes(range(32))])
LOCAL = "http://127.0.0.1:8080"

ENVIRONMENT = (
    *("ENCODER_HOST", "PORT", "ENCODER_AUTH", "ENCODER_API_KEY", "ENCODER_FILES_ROOT"),
    *("ENCODER_DASHBOARD", "ENCODER_MAX_BODY_BYTES", "ENCODER_SESSION_HOURS", "ENCODER_DRAIN_S"),
    *("ENCODER_SHUTDOWN_S", "ENCODER_RATE_LIMIT_PER_S", "ENCODER_MAX_QUEUED_PER_OWNER"),
    "ENCODER_BODY_TIMEOUT_S",
)
"""The names of the API's settings."""


class StillClock:
    """Stands still until it is told the time."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


Answer = Any  # httpx's response, by whichever name Starlette's client imports it


class CheckedClient(TestClient):
    """Fails when the service answers in a way that its OpenAPI document does not announce."""

    def __init__(self, app: Starlette, **options: Any) -> None:
        super().__init__(app, raise_server_exceptions=False, base_url=LOCAL, **options)
        self.document: dict[str, Any] = super().request("GET", "/openapi.json").json()
        self.unannounced_allowed = False

    def request(self, method: str, url: Any, **options: Any) -> Answer:
        response = super().request(method, url, **options)
        if not self.unannounced_allowed:
            self.check(method, str(url), response)
        return response

    def check(self, method: str, url: str, response: Answer) -> None:
        operation = self._operation(method, url.partition("?")[0])
        if operation is None:
            return
        status = str(response.status_code)
        announced = operation["responses"]
        assert status in announced, f"{method} {url} is not said to answer {status}"
        content = announced[status].get("content")
        if content is None:
            assert not response.content, f"{method} {url} {status} is said to have no body"
            return
        media_type = response.headers["content-type"].partition(";")[0]
        assert media_type in content
        if "json" in media_type:
            schema = {**content[media_type]["schema"], "components": self.document["components"]}
            Draft202012Validator(schema, format_checker=FormatChecker()).validate(response.json())
        if media_type == "application/problem+json":
            assert response.json()["type"] in {
                example["value"]["type"] for example in content[media_type]["examples"].values()
            }, f"{method} {url} is not said to refuse with {response.json()['type']}"

    def _operation(self, method: str, path: str) -> dict[str, Any] | None:
        for template, methods in self.document["paths"].items():
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
                found: dict[str, Any] | None = methods.get(method.lower())
                return found
        return None


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own settings must not change what is tested."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the whole schema, to copy: migrating takes longer than most tests."""
    path = tmp_path_factory.mktemp("schema") / "encoder.db"
    with Store.open(f"sqlite:///{path}", keys=KEYS) as store:
        migrate(store)
    return path


@pytest.fixture
def store(migrated: Path, tmp_path: Path) -> Iterator[Store]:
    path = tmp_path / "encoder.db"
    shutil.copy(migrated, path)
    with Store.open(f"sqlite:///{path}", keys=KEYS) as store:
        yield store


ClientMaker = Callable[..., CheckedClient]


@pytest.fixture
def make_client(store: Store) -> Iterator[ClientMaker]:
    """A client of an app with other settings; without any, it is open to this machine."""
    made: list[CheckedClient] = []

    def make(*, clock: Clock | None = None, **settings: Any) -> CheckedClient:
        client = CheckedClient(create_app(ApiSettings(**settings), store, clock=clock))
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(make_client: ClientMaker) -> CheckedClient:
    """A client of the service as it is without any settings: open, on loopback."""
    return make_client()


@pytest.fixture
def add_key(store: Store) -> Callable[..., dict[str, str]]:
    """Make an API key; returns the headers to send."""

    def add(owner: str = "default", *scopes: str) -> dict[str, str]:
        given = list(scopes) or ["jobs:read", "jobs:write"]
        key = store.run(lambda tx: create_key(tx, name=f"of {owner}", owner=owner, scopes=given))
        return {"Authorization": f"Bearer {key}"}

    return add
