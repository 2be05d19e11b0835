"""`encoder fsck` as people and programs read it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from sqlalchemy import delete

from encoder_db.migrations import migrate
from encoder_db.store import Store
from encoder_db.tables import queue_jobs
from tests.db import builders as make
from tests.system.service import settings_for


def _fsck(url: str, folder: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "encoder_cli", "fsck", *arguments],
        env=settings_for(url, folder),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout


def test_it_finds_repairs_and_says_what_it_did(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'data' / 'encoder.db'}"
    with Store.open(url) as store:
        migrate(store)
        job = make.create(store)
        with store.begin() as tx:
            tx.execute(delete(queue_jobs))
    rule = "A queued job is in its queue."
    code, said = _fsck(url, tmp_path)
    assert (code, said.splitlines()[:2]) == (
        1,
        [f"job {job.id}: waiting. {rule}", "jobs looked at: 1, rules broken: 1"],
    )
    code, said = _fsck(url, tmp_path, "--repair")
    assert (code, said.splitlines()[0]) == (0, f"job {job.id}: waiting: repaired. {rule}")
    code, said = _fsck(url, tmp_path, "--json")
    assert (code, json.loads(said)) == (0, {"jobs": 1, "findings": []})
