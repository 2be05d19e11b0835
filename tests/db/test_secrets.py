"""No secret is in any column of any table in clear, and each goes when nobody needs it."""

from __future__ import annotations

import base64

import pytest
from sqlalchemy import select

from encoder_core.failures import failure
from encoder_core.reports import SourceInfo, SourceReport
from encoder_core.sealing import CannotOpen, KeyRing
from encoder_db.idempotency import Idempotency
from encoder_db.jobs import cancel_job, create_job
from encoder_db.keys import create_key
from encoder_db.outbox import claim_deliveries, reschedule_delivery
from encoder_db.secrets import read_credentials
from encoder_db.store import Store
from encoder_db.tables import instance_secrets, job_secrets, metadata
from tests.canaries import leaks
from tests.db import builders as make

CANARIES = {
    "s3 source key": "AKIACANARYSOURCE",
    "s3 source secret": "canary/s3+source=",
    "session token": "canary-session-token",
    "destination header": "canary-header-value",
    "signed url": "canary-signature",
    "url password": "canary-url-pass",
    "ftp user": "canary-ftp-user",
    "ftp password": "canary-ftp-pass",
    "hook password": "canary-hook-pass",
    "hook token": "canary-hook-token",
}
ASKED = make.spec(
    [
        {
            "destination": {
                "kind": "https",
                "url": f"https://u:{CANARIES['url password']}@example.com/put?"
                f"X-Amz-Signature={CANARIES['signed url']}",
                "headers": {"X-Api-Key": CANARIES["destination header"]},
            }
        },
        {
            "destination": {
                "kind": "ftp",
                "host": "ftp.example.com",
                "path": "out.mp4",
                "user": CANARIES["ftp user"],
                "password": CANARIES["ftp password"],
            }
        },
    ],
    source={
        **make.s3(CANARIES["s3 source key"], CANARIES["s3 source secret"]),
        "session_token": CANARIES["session token"],
    },
    notificationUrl=f"https://h:{CANARIES['hook password']}@example.com/h?"
    f"token={CANARIES['hook token']}",
)


def _everything(store: Store) -> str:
    """All rows of all tables; bytes as text and as base64."""
    parts = []
    with store.read() as tx:
        for table in metadata.sorted_tables:
            for row in tx.execute(select(table)):
                for value in row:
                    if isinstance(value, bytes):
                        parts += [value.decode("latin-1"), base64.b64encode(value).decode()]
                    else:
                        parts.append(str(value))
    return "\n".join(parts)


def test_no_table_holds_a_secret_in_clear(store: Store) -> None:
    idempotency = Idempotency(key="once", fingerprints=(b"f" * 32,))
    store.run(
        lambda tx: create_job(
            tx, spec=ASKED, owner="default", keys=store.keys, idempotency=idempotency
        )
    )
    make.create(store, ASKED)
    worker = make.running(store)
    make.say(store, worker, make.progress())
    make.say(store, worker, SourceReport(source=SourceInfo(container="mov")))
    make.say(store, worker, make.uploaded(0))
    make.say(store, worker, make.failed(failure("destination_denied", output=1)))
    for delivery in claim_deliveries(store, worker="s", limit=9, lease_s=60):
        reschedule_delivery(store, delivery, delay_s=5, outcome="timeout")
    make.finish(store, worker, exit_code=50)
    api_key = store.run(lambda tx: create_key(tx, name="k", owner="o", scopes=["jobs:read"]))
    secrets = {
        **CANARIES,
        "attempt token": worker.token,
        "api key": api_key.rpartition("_")[2],
        "webhook secret": store.webhook_secret,
    }
    dump = _everything(store)
    assert '"set": True' in dump or "'set': True" in dump
    assert leaks(dump, secrets.values()) == []


def test_sealed_credentials_open_for_their_own_job_only(store: Store) -> None:
    ours = make.create(store, make.spec(source=make.s3("AKIA1", "first")))
    theirs = make.create(store, make.spec(source=make.s3("AKIA2", "second")))
    with store.read() as tx:
        opened = read_credentials(tx, ours.id, ours.uuid, keys=store.keys)
        assert opened == {
            "/source/access_key_id": "AKIA1",
            "/source/access_key_secret": "first",
        }
        with pytest.raises(CannotOpen):
            read_credentials(tx, ours.id, theirs.uuid, keys=store.keys)
        with pytest.raises(CannotOpen):
            read_credentials(tx, ours.id, ours.uuid, keys=KeyRing([b"x" * 32]))


def _purposes(store: Store) -> list[tuple[str, bool]]:
    with store.read() as tx:
        rows = tx.execute(select(job_secrets).order_by(job_secrets.c.purpose)).all()
    return [(row.purpose, row.expires_at is not None) for row in rows]


def test_credentials_are_destroyed_with_success(store: Store) -> None:
    make.create(store, ASKED)
    make.complete(store, make.running(store))
    assert _purposes(store) == [("webhook", False)]


def test_credentials_are_destroyed_with_a_cancellation(store: Store) -> None:
    job = make.create(store, ASKED)
    cancel_job(store, job.id, owner=None)
    assert _purposes(store) == [("webhook", False)]


def test_credentials_expire_after_a_failure(store: Store) -> None:
    job = make.create(store, ASKED)
    make.finish(store, make.running(store), exit_code=30)
    assert _purposes(store) == [("job-secrets", True), ("webhook", False)]
    make.let_pass(store, 24 * 3600 + 1)
    with store.read() as tx:
        assert read_credentials(tx, job.id, job.uuid, keys=store.keys) is None


# --- The installation's own ------------------------------------------------------------------


def test_a_key_that_nobody_gave_is_made_once_and_kept(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Store.open(database_url) as store:
        sealed = store.keys.seal(b"text", purpose="test")
        hook = store.webhook_secret
    assert [record.message for record in caplog.records] == ["secret_key_generated"]
    with Store.open(database_url) as store:
        assert store.keys.open(sealed, purpose="test") == b"text"
        assert store.webhook_secret == hook
    assert hook.startswith("whsec_")
    assert len(base64.b64decode(hook.removeprefix("whsec_"))) == 32


def test_a_given_key_is_not_stored(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with Store.open(database_url, keys=KeyRing([b"g" * 32]), webhook_secret="whsec_eA==") as store:
        assert store.webhook_secret == "whsec_eA=="
        make.create(store, ASKED)
        with store.read() as tx:
            assert set(tx.execute(select(instance_secrets.c.name)).scalars()) <= {"key_check"}
    assert caplog.records == []
