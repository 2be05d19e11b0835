"""How large a webhook and a page can be: with the largest jobs that requests may ask for."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import func, select

from encoder_core.documents import JobSummary
from encoder_core.errors import InvalidRequest
from encoder_core.model import MAX_URL_BYTES
from encoder_core.reports import OutputFile, OutputReport, OutputResult
from encoder_core.specs import MAX_METADATA, MAX_OUTPUTS, JobSpec
from encoder_core.states import OutputStatus
from encoder_db.bump import bump_job
from encoder_db.cluster import adopt_job
from encoder_db.dialect import to_json
from encoder_db.events import list_events
from encoder_db.intake import MAX_SHOWN_BYTES
from encoder_db.jobs import list_jobs
from encoder_db.outbox import claim_deliveries
from encoder_db.portions import PAGE_BYTES
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


# --- Pages -----------------------------------------------------------------------------------


def test_a_page_of_large_jobs_ends_after_some_megabytes(store: Store) -> None:
    asked = JobSpec.model_validate(largest())
    probe = make.spec([])  # one without outputs
    made = [make.create(store, spec).id for spec in (asked, probe) * 7]
    pages = []
    before = None
    while before is None or pages[-1].more:
        with store.read() as tx:
            pages.append(list_jobs(tx, owner=None, before_id=before))
        before = pages[-1][-1].id
    assert [job.id for page in pages for job in page] == made[::-1]
    assert [[len(job.outputs) for job in page] for page in pages] == [
        [0, MAX_OUTPUTS] * 5,
        [0, MAX_OUTPUTS] * 2,
    ]


def test_a_page_of_jobs_with_long_metadata_ends_after_some_megabytes(store: Store) -> None:
    metadata = {f"{number:x>64}": FIGURE * 512 for number in range(MAX_METADATA)}
    make.create_many(store, make.spec(metadata=metadata), 80)
    with store.read() as tx:
        first = list_jobs(tx, owner=None)
        second = list_jobs(tx, owner=None, before_id=first[-1].id)
    assert (first.more, second.more) == (True, False)
    assert len(first) + len(second) == 80
    assert PAGE_BYTES < sum(map(size_of, first)) < PAGE_BYTES + MIB


def test_a_page_of_large_events_ends_after_some_megabytes(store: Store) -> None:
    job = make.create(store, JobSpec.model_validate(largest()))
    for _ in range(6):
        bump_job(store, job.id, owner=None)
    with store.read() as tx:
        first = list_events(tx, job.id)
        second = list_events(tx, job.id, after=first[-1].sequence)
        alone = list_events(tx, job.id, most_bytes=1)
        none = list_events(tx, job.id, after=7)
    assert [[event.sequence for event in page] for page in (first, second, alone, none)] == [
        [1, 2, 3, 4],
        [5, 6, 7],
        [1],
        [],
    ]
    assert [page.more for page in (first, second, alone, none)] == [True, False, True, False]


def size_of(job: JobSummary) -> int:
    return len(to_json(job.to_json()).encode())


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
