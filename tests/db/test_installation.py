"""API keys, pools and settings: what belongs to the installation and not to a job."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import get_args

import pytest

from encoder_core.errors import ConfigurationError, Refused
from encoder_core.sealing import KeyRing
from encoder_db.keys import authenticate_key, create_key, has_keys, list_keys, revoke_key
from encoder_db.migrations import migrate
from encoder_db.pools import StopPolicy, create_pool, list_pools, read_pool, set_pool
from encoder_db.settings import DatabaseSettings, QueueSettings, SecretSettings
from encoder_db.store import Store, open_store
from tests.db import builders as make

# --- API keys --------------------------------------------------------------------------------


def _key(store: Store, *scopes: str) -> str:
    return store.run(lambda tx: create_key(tx, name="ci", owner="alice", scopes=scopes))


def test_a_key_says_whose_it_is_and_what_it_may_do(store: Store) -> None:
    key = _key(store, "jobs:write", "jobs:read")
    prefix, public, secret = key.split("_")
    assert (prefix, len(public), len(secret)) == ("enc", 8, 32)
    principal = authenticate_key(store, key)
    assert principal is not None
    assert (principal.name, principal.owner) == ("ci", "alice")
    assert principal.scopes == {"jobs:read", "jobs:write"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda key: key[:-1] + ("a" if key[-1] != "a" else "b"), id="another secret"),
        pytest.param(lambda key: key.replace("enc_", "enc_x")[:-1], id="another public part"),
        pytest.param(lambda key: key + " ", id="a space more"),
        pytest.param(lambda key: key + "\n", id="a line feed more"),
        pytest.param(lambda key: "", id="nothing"),
        pytest.param(lambda key: "é" * 50, id="not ASCII"),
    ],
)
def test_a_key_that_is_not_exactly_right_is_nobodys(store: Store, change: make.Act) -> None:
    key = _key(store)
    assert authenticate_key(store, change(key)) is None  # type: ignore[call-arg, arg-type]  # a function of one text


def test_a_revoked_key_works_no_more(store: Store) -> None:
    key = _key(store)
    with store.read() as tx:
        assert has_keys(tx)
    assert store.run(lambda tx: revoke_key(tx, key[:12]))
    assert not store.run(lambda tx: revoke_key(tx, key[:12]))
    assert authenticate_key(store, key) is None
    with store.read() as tx:
        assert not has_keys(tx)
        (row,) = list_keys(tx)
    assert row.revoked_at is not None
    assert row.prefix == key[:12]
    assert key.rpartition("_")[2] not in str(row.to_json())


@pytest.mark.parametrize("beginning", ["é", "enc_é", "enc_🎬aaaaaaa", "\udce9", "", "enc_"])
def test_what_is_no_beginning_of_a_key_revokes_none(store: Store, beginning: str) -> None:
    key = _key(store)
    assert not store.run(lambda tx: revoke_key(tx, beginning))
    assert authenticate_key(store, key) is not None


def test_the_use_of_a_key_is_noted_at_most_once_a_minute(store: Store) -> None:
    key = _key(store)
    noted = []
    for pause_s in (0, 30, 31):
        make.let_pass(store, pause_s)
        with make.statements(store) as seen:
            authenticate_key(store, key)
        noted.append(len(seen) == 2)
    assert noted == [True, False, True]


# --- Pools -----------------------------------------------------------------------------------


def test_every_installation_has_a_pool(store: Store) -> None:
    with store.read() as tx:
        (pool,) = list_pools(tx)
    assert (pool.name, pool.engine, pool.stop_policy) == ("default", "local", "None")


def test_a_pool_says_what_runs_and_what_waits(store: Store) -> None:
    for _ in range(3):
        make.create(store)
    make.running(store)
    with store.read() as tx:
        pool = read_pool(tx, "default")
        assert read_pool(tx, "no-such") is None
    assert pool is not None
    assert (pool.active, pool.queued) == (1, 2)


def test_a_pool_is_changed_in_what_is_given(store: Store) -> None:
    for policy in get_args(StopPolicy):
        pool = store.run(lambda tx, policy=policy: set_pool(tx, "default", stop_policy=policy))  # type: ignore[misc]  # a default binds the loop's value
        assert pool is not None
        assert (pool.stop_policy, pool.max_concurrency) == (policy, 1000)
    changed = store.run(lambda tx: set_pool(tx, "default", max_concurrency=3))
    assert changed is not None
    assert (changed.stop_policy, changed.max_concurrency) == ("Drain", 3)
    assert store.run(lambda tx: set_pool(tx, "no-such", max_concurrency=3)) is None


def test_the_cluster_rules_its_own_pools(store: Store) -> None:
    make.kubernetes_pool(store, "hd")
    with pytest.raises(Refused, match="kubectl scale transcodepool hd") as refused:
        store.run(lambda tx: set_pool(tx, "hd", max_concurrency=3))
    assert (refused.value.code, refused.value.status) == ("pool_ruled_by_cluster", 409)


def test_a_pool_is_made_once(store: Store) -> None:
    with pytest.raises(Refused) as refused:
        store.run(lambda tx: create_pool(tx, "default", engine="local", max_concurrency=1))
    assert refused.value.code == "pool_exists"


# --- Settings --------------------------------------------------------------------------------


def test_without_a_mysql_host_the_record_is_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MYSQL_HOST", "")
    monkeypatch.setenv("ENCODER_DATA_DIR", str(tmp_path))
    settings = DatabaseSettings()
    assert settings.is_sqlite
    assert str(settings.url) == f"sqlite:///{tmp_path}/encoder.db"


def test_with_a_mysql_host_the_record_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYSQL_HOST", "db")
    monkeypatch.setenv("MYSQL_PASSWORD", "p@ss/word")
    url = DatabaseSettings().url
    assert url.render_as_string(hide_password=False) == (
        "mysql+pymysql://encoder:p%40ss%2Fword@db:3306/encoder"
    )
    assert "p%40ss" not in str(url)


def test_the_queues_settings_have_the_originals_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL_INTERVAL_MS", "VISIBILITY_TIMEOUT_MS", "MAX_ATTEMPTS"):
        monkeypatch.delenv(f"QUEUE_{name}", raising=False)
    monkeypatch.setenv("RETENTION_HOURS", "24")
    settings = QueueSettings()
    assert (settings.poll_interval_ms, settings.visibility_timeout_ms) == (1000, 600_000)
    assert (settings.max_attempts, settings.retention_hours) == (3, 24)


def test_what_was_sealed_before_a_key_was_given_opens_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MYSQL_HOST", raising=False)
    monkeypatch.setenv("ENCODER_DATA_DIR", str(tmp_path))
    database = DatabaseSettings()
    with open_store(database, SecretSettings()) as store:
        migrate(store)
        announced = store.webhook_secret
        sealed = store.keys.seal(b"credentials", purpose="a job's")
    monkeypatch.setenv("ENCODER_SECRET_KEY", base64.b64encode(b"n" * 32).decode())
    with open_store(database, SecretSettings()) as store:
        assert store.webhook_secret == announced
        assert store.keys.open(sealed, purpose="a job's") == b"credentials"
        assert store.keys.current_key_id == KeyRing([b"n" * 32]).current_key_id


def test_a_data_folder_serves_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MYSQL_HOST", raising=False)
    monkeypatch.setenv("ENCODER_DATA_DIR", str(tmp_path / "new"))
    database, secrets = DatabaseSettings(), SecretSettings()
    with open_store(database, secrets, exclusive=True):
        with pytest.raises(ConfigurationError, match="another process works with"):
            open_store(database, secrets, exclusive=True)
        open_store(database, secrets).close()
    open_store(database, secrets, exclusive=True).close()
