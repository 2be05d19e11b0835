"""A record for the operator's impure parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from encoder_core.sealing import KeyRing
from encoder_db.migrations import migrate
from encoder_db.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path}/encoder.db", keys=KeyRing([b"k" * 32])) as store:
        migrate(store)
        yield store
