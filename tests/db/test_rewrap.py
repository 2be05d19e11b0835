"""A new ENCODER_SECRET_KEY: everything goes under it, nothing is lost, a wrong one is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import select, update

from encoder_core.errors import ConfigurationError
from encoder_core.sealing import KeyRing
from encoder_db.events import record_event
from encoder_db.migrations import migrate
from encoder_db.outbox import claim_deliveries
from encoder_db.rewrap import BATCH, Rewrapped, rewrap
from encoder_db.rows import JobRow, lock_job
from encoder_db.secrets import read_credentials
from encoder_db.store import Store
from encoder_db.tables import instance_secrets, job_secrets, jobs, webhook_deliveries
from tests.db import builders as make

HEAD_START_S = 0.5  # more than it takes when it does not wait
OLD, NEW = b"o" * 32, b"n" * 32
HOOK = "https://example.com/hook?token=hook-token"
ASKED = make.spec(source=make.s3("AKIA1", "first"), notificationUrl=HOOK)


@pytest.fixture
def job(database_url: str) -> JobRow:
    """A job whose credentials and webhook are sealed with the old key."""
    with Store.open(database_url, keys=KeyRing([OLD])) as store:
        with store.begin() as tx:
            tx.execute(instance_secrets.delete())  # the tables were made under another key
        migrate(store)
        assert store.webhook_secret
        return make.create(store, ASKED)


@pytest.fixture
def rotating(database_url: str) -> Iterator[Store]:
    with Store.open(database_url, keys=KeyRing([NEW, OLD])) as store:
        yield store


def test_after_a_rewrap_the_old_key_can_be_taken_away(
    database_url: str, rotating: Store, job: JobRow
) -> None:
    hook = rotating.webhook_secret
    # Credentials, the URL of the job, that of its delivery, the signing secret, the word to try.
    assert rewrap(rotating) == Rewrapped(rewrapped=5)
    assert rewrap(rotating) == Rewrapped(current=5)
    with Store.open(database_url, keys=KeyRing([NEW])) as store:
        migrate(store)
        with store.read() as tx:
            credentials = read_credentials(tx, job.id, job.uuid, keys=store.keys)
        (delivery,) = claim_deliveries(store, worker="s", limit=9, lease_s=60)
        assert credentials is not None
        assert credentials["/source/access_key_secret"] == "first"
        assert delivery.url == HOOK
        assert store.webhook_secret == hook
        with store.read() as tx:
            assert set(tx.execute(select(job_secrets.c.kek_id)).scalars()) == {
                store.keys.current_key_id
            }


def test_more_than_one_batch_is_rewrapped_whole(rotating: Store, job: JobRow) -> None:
    old = KeyRing([OLD])
    with rotating.begin() as tx:
        tx.execute(
            job_secrets.insert(),
            [
                {
                    "job_id": job.id,
                    "purpose": f"p{number}",
                    "sealed": old.seal(b"x", purpose=f"p{number}:{job.uuid}"),
                    "kek_id": old.current_key_id,
                }
                for number in range(2 * BATCH)
            ],
        )
    assert rewrap(rotating).rewrapped == 2 * BATCH + 5


def test_what_was_being_announced_meanwhile_is_rewrapped_too(
    database_url: str, rotating: Store, job: JobRow
) -> None:
    """It carries the address as it was read before, and is seen only once it is committed."""
    with Store.open(database_url, keys=KeyRing([NEW, OLD])) as other:
        rotation = threading.Thread(target=rewrap, args=(other,))
        with rotating.begin() as tx:
            assert lock_job(tx, job.id)
            tx.execute(update(jobs).where(jobs.c.id == job.id).values(version=jobs.c.version + 1))
            record_event(tx, job.id, "job.bumped")
            rotation.start()
            rotation.join(HEAD_START_S)
        rotation.join()
    with rotating.read() as tx:
        targets = list(tx.execute(select(webhook_deliveries.c.target)).scalars())
    assert [rotating.keys.is_current(target) for target in targets] == [True, True]


def test_a_start_with_a_key_that_opens_nothing_is_refused(database_url: str, job: JobRow) -> None:
    with (
        Store.open(database_url, keys=KeyRing([NEW])) as store,
        pytest.raises(ConfigurationError, match=r"encoder keys rewrap"),
    ):
        migrate(store)
    with Store.open(database_url, keys=KeyRing([NEW, OLD])) as store:
        migrate(store)


def test_a_start_without_the_key_that_was_given_before_is_refused(
    database_url: str, job: JobRow
) -> None:
    with (
        Store.open(database_url) as store,
        pytest.raises(ConfigurationError, match="ENCODER_SECRET_KEY does not open"),
    ):
        migrate(store)


def test_what_a_lost_key_sealed_is_kept_until_somebody_says_otherwise(
    database_url: str, job: JobRow
) -> None:
    with Store.open(database_url, keys=KeyRing([NEW])) as store:
        assert rewrap(store) == Rewrapped(lost=5)
        assert rewrap(store, forget_lost=True) == Rewrapped(forgotten=5)
        with store.read() as tx:
            for table in (job_secrets, webhook_deliveries, instance_secrets):
                assert tx.execute(select(table)).all() == []
        migrate(store)
