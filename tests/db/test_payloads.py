"""How large a webhook can be: the largest job that a request may ask for."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from encoder_core.reports import OutputFile, OutputReport, OutputResult
from encoder_core.specs import MAX_METADATA, MAX_OUTPUTS, JobSpec
from encoder_core.states import OutputStatus
from encoder_db.outbox import claim_deliveries
from encoder_db.store import Store
from encoder_db.tables import job_events
from tests.db import builders as make

MIB = 1024 * 1024
LARGEST_BYTES = 4 * MIB  # docs/webhooks.md says so
FIGURE = "\N{CLAPPER BOARD}"  # four bytes in UTF-8, twelve where JSON has ASCII only
LONGEST_URL = 8192
ORDINARY_BYTES = 4096
EACH_FILE_BYTES = 200
FILES = 1000


def test_a_webhook_of_the_largest_job_stays_below_what_receivers_are_told(store: Store) -> None:
    make.create(store, JobSpec.model_validate(largest()))
    [first] = claim_deliveries(store, worker="sender", limit=1, lease_s=60)
    assert MIB < len(first.body) < LARGEST_BYTES


def test_a_webhook_of_an_ordinary_job_has_a_few_kilobytes(store: Store) -> None:
    make.create(store, make.spec(3, notificationUrl="https://app.example/hook"))
    [first] = claim_deliveries(store, worker="sender", limit=1, lease_s=60)
    assert len(first.body) < ORDINARY_BYTES


def test_each_file_that_was_uploaded_adds_its_url_and_little_more(store: Store) -> None:
    make.create(store, make.spec(1, notificationUrl="https://app.example/hook"))
    worker = make.running(store)
    file = OutputFile(
        url="https://media.example/" + "a" * 100,
        size_bytes=10**12,
        sha256="f" * 64,
        content_type="application/vnd.apple.mpegurl",
    )
    result = OutputResult(files=[file] * FILES, size_bytes=1)
    make.say(store, worker, OutputReport(index=0, status=OutputStatus.UPLOADED, result=result))
    with store.read() as tx:
        sizes = tx.execute(select(func.length(job_events.c.payload))).scalars().all()
    assert max(sizes) < ORDINARY_BYTES + FILES * (len(file.url) + EACH_FILE_BYTES)


def largest() -> dict[str, Any]:
    """Every text at its longest, in what takes most room: pictures at a thousand moments."""
    place = {"kind": "https", "url": longest_url(), "headers": longest_headers()}
    tags = ("title", "artist", "album", "date", "genre", "comment", "copyright")
    output = {
        "container": "jpg",
        "thumbnails": {"at": [number + 0.12345678901 for number in range(1000, 2000)]},
        "metadata": dict.fromkeys(tags, FIGURE * 512),
        "watermark": {"source": place},
        "destination": place,
    }
    return {
        "source": place,
        "outputs": [output] * MAX_OUTPUTS,
        "notificationUrl": longest_url(),
        "externalId": FIGURE * 128,
        "metadata": {f"{number:x>64}": FIGURE * 512 for number in range(MAX_METADATA)},
    }


def longest_url() -> str:
    return "https://media.example/".ljust(LONGEST_URL, "a")


def longest_headers() -> dict[str, str]:
    return {f"{number:x>128}": "a-secret-value" for number in range(32)}
