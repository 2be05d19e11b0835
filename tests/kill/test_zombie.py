"""
A zombie: the worker of a node that is lost keeps running, and publishes nothing any more.

Two real workers of one job, with one destination. The first hears nothing since its lease of ten
milliseconds, which are the record's two minutes; the second is the one that followed it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from encoder_core.exits import Exit
from encoder_core.reports import PUBLISH_LEASE_S, Started
from encoder_core.states import JobStatus
from encoder_db.attempts import Refusal
from encoder_db.dialect import in_seconds
from encoder_db.fsck import fsck
from encoder_db.store import Store
from encoder_db.tables import queue_jobs
from encoder_db.takeover import LAPSE_MARGIN_S
from tests.db import builders as make
from tests.figures import tell_figure
from tests.servers.ftp import FtpServer
from tests.servers.http import HttpServer
from tests.servers.s3 import S3Bucket
from tests.worker.driver import ACCEPTED, Worker, make_order

LAPSING = {"accepted": True, "publishLeaseS": 0.01}


def _order(folder: Path, clip: Path, attempt: int, width: int, destination: Any) -> dict[str, Any]:
    (folder / "files").mkdir(exist_ok=True)
    (folder / "files" / "in.mp4").write_bytes(clip.read_bytes())
    spec = {"container": "mp4", "width": width, "destination": destination}
    scratch = folder / f"scratch-{attempt}"
    scratch.mkdir()
    source = {"kind": "file", "path": "in.mp4"}
    return make_order(folder, source, spec, attempt=attempt, scratchDir=str(scratch))


@dataclass(frozen=True)
class Place:
    destination: dict[str, Any]
    read: Callable[[], bytes]


@pytest.fixture(params=["file", "http", "ftp", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A destination, and what is published there."""
    if request.param == "file":
        published = tmp_path / "files" / "out.mp4"
        return Place({"kind": "file", "path": "out.mp4"}, published.read_bytes)
    if request.param == "http":
        server: HttpServer = request.getfixturevalue("http_server")
        url = f"{server.url}/out.mp4"
        return Place({"kind": "http", "url": url}, lambda: server.stored("/out.mp4"))
    if request.param == "ftp":
        # Under a name of its own until it is whole; the rename is what the lease keeps back.
        ftp: FtpServer = request.getfixturevalue("ftp_server")
        return Place(ftp.fields("out.mp4"), (ftp.folder / "out.mp4").read_bytes)
    bucket: S3Bucket = request.getfixturevalue("s3_bucket")
    return Place(bucket.fields("out.mp4"), lambda: bucket.get("out.mp4"))


def test_a_worker_of_a_lost_node_does_not_overwrite_what_its_successor_published(
    store: Store,
    tmp_path: Path,
    clip: Callable[[str], Path],
    place: Place,
    request: pytest.FixtureRequest,
) -> None:
    source = clip("h264_320x180_25p_2s_stereo.mp4")
    job = make.create(store)
    lost = make.starting(store, worker="node-a")
    assert make.say(store, lost, Started()).publish_lease_s > 0
    with Worker(_order(tmp_path, source, 1, 64, place.destination)) as zombie:
        for envelope in zombie.envelopes():
            if envelope["report"].get("phase") == "uploading":
                break
            zombie.say(LAPSING)
        # From here on the network of its node is gone: nobody answers, and it waits with its file.
        heir = _succeed(store)
        with Worker(_order(tmp_path, source, 2, 128, place.destination)) as worker:
            code, reports = worker.finish(lambda _: ACCEPTED)
        assert code == Exit.SUCCEEDED, reports
        for report in (make.uploaded(), make.succeeded()):
            assert make.say(store, heir, report).accepted
        assert make.finish(store, heir) is JobStatus.COMPLETED
        truth = place.read()
        assert zombie.process.poll() is None, "it still runs, with a file of its own to publish"
        # The network is back: what it says is refused, and it ends.
        assert not make.say(store, lost, make.uploaded()).accepted
        zombie.say({"accepted": False})
        zombie_code, said = zombie.finish(lambda _: {"accepted": False})
        assert zombie_code == Exit.FENCED
        assert not [report for report in said if report.get("status") == "uploaded"]
    overwritten = int(place.read() != truth)
    digest = hashlib.sha256(truth).hexdigest()[:12]
    tell_figure(
        f"zombie, {request.node.callspec.id}: published by its successor {digest}, "
        f"overwritten {overwritten}"
    )
    assert overwritten == 0
    assert make.attempt_statuses(store, job) == ["lost", "succeeded"]
    assert fsck(store).findings == []


def _succeed(store: Store) -> make.Claimed:
    """Another node takes the job over: not before the publish lease has lapsed, but then."""
    with store.begin() as tx:  # the queue's lease ends first: a short visibility time-out
        tx.execute(update(queue_jobs).values(visible_at=in_seconds(-1)))
    early = make.open_one(store, worker="node-b")
    assert early == Refusal("publish_lease")
    make.let_pass(store, PUBLISH_LEASE_S + LAPSE_MARGIN_S + 1)
    heir = make.claimed(store, worker="node-b")
    assert make.mark_starting(store, heir)
    return heir
