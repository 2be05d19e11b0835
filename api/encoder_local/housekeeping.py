"""What nobody waits for: mending what crashes left behind, deleting what is old."""

from __future__ import annotations

import logging
import threading
from typing import Final

from sqlalchemy.exc import DBAPIError

from encoder_db.retention import delete_old_jobs
from encoder_db.store import Store
from encoder_db.sweep import sweep

log = logging.getLogger("encoder.housekeeping")

SWEEP_S: Final = 60.0
SWEEPS_BETWEEN_RETENTION: Final = 60


class Housekeeper:
    """Sweeps each minute and deletes old jobs each hour. Harmless when several do it at once."""

    def __init__(self, store: Store, *, retention_hours: int) -> None:
        self._store = store
        self._retention_hours = retention_hours

    def run(self, stop: threading.Event) -> None:
        rounds = 0
        while not stop.is_set():
            try:
                sweep(self._store)
                if rounds % SWEEPS_BETWEEN_RETENTION == 0:
                    delete_old_jobs(self._store, older_than_h=self._retention_hours)
            except DBAPIError as error:
                log.warning("store_unavailable", extra={"error": type(error.orig).__name__})
            rounds += 1
            stop.wait(SWEEP_S)
