"""How large a webhook can be: the largest job that a request may ask for."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import func, select

from encoder_core.errors import InvalidRequest
from encoder_core.model import MAX_URL_BYTES
from encoder_core.reports import OutputFile, OutputReport, OutputResult
from encoder_core.specs import MAX_OUTPUTS, JobSpec
from encoder_core.states import OutputStatus
from encoder_db.cluster import adopt_job
from encoder_db.dialect import to_json
from encoder_db.intake import MAX_SHOWN_BYTES
from encoder_db.outbox import claim_deliveries
from encoder_db.store import Store
from encoder_db.tables import job_events
from tests.db import builders as make

MIB = 1024 * 1024
LARGEST_BYTES = MIB + 16 * 1024  # docs/webhooks.md says so
FIGURE = "\N{CLAPPER BOARD}"  # four bytes in UTF-8, twelve where a URL is shown
ORDINARY_BYTES = 4096
EACH_FILE_BYTES = 200
FILES = 1000


def test_a_webhook_of_the_largest_job_stays_below_what_receivers_are_told(store: Store) -> None:
    make.create(store, JobSpec.model_validate(largest()))
    [first] = claim_deliveries(store, worker="sender", limit=1, lease_s=60)
    assert MIB < len(first.body) < LARGEST_BYTES


def test_a_larger_job_is_refused_with_what_to_do(store: Store) -> None:
    asked = JobSpec.model_validate(largest(url_characters=MAX_URL_BYTES // 4 - 10))
    with pytest.raises(InvalidRequest, match="give shorter URLs, texts and lists") as it:
        make.create(store, asked)
    assert [(problem.pointer, problem.code) for problem in it.value.problems] == [("", "too_large")]
    assert make.count(store, "jobs") == 0


def test_one_that_is_applied_by_hand_is_refused_too(store: Store) -> None:
    pool = make.kubernetes_pool(store)
    asked = JobSpec.model_validate(largest(url_characters=MAX_URL_BYTES // 4 - 10))
    asked = asked.model_copy(update={"pool": pool})
    with pytest.raises(InvalidRequest, match="the most"), store.begin() as tx:
        adopt_job(tx, spec=asked, name="large", uid="1", keys=store.keys)


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


def largest(*, url_characters: int | None = None) -> dict[str, Any]:
    """As many outputs as there may be, and URLs as long as the whole allows."""
    if url_characters is None:
        rest = JobSpec.model_validate(largest(url_characters=0)).to_json()
        room = MAX_SHOWN_BYTES - len(to_json(rest))
        url_characters = room // (len(quote(FIGURE)) * 2 * MAX_OUTPUTS)
    place = {"kind": "https", "url": f"https://media.example/?a={FIGURE * url_characters}"}
    output = {"container": "jpg", "watermark": {"source": place}, "destination": place}
    return {
        "source": {"kind": "https", "url": "https://media.example/in.mp4"},
        "outputs": [output] * MAX_OUTPUTS,
        "notificationUrl": "https://app.example/hook",
    }
