"""How far the attempt is, in one number that never goes back."""

from __future__ import annotations

from threading import Lock
from typing import Final

from encoder_core.reports import Phase, ProgressReport

# Shares of the whole. Guesses: what matters is that the bar moves and never jumps back.
_WITH_FETCH: Final = {
    Phase.FETCHING: (0.0, 15.0),
    Phase.PROBING: (15.0, 16.0),
    Phase.ENCODING: (16.0, 86.0),
    Phase.VERIFYING: (86.0, 88.0),
    Phase.UPLOADING: (88.0, 100.0),
    Phase.DONE: (100.0, 100.0),
}
_IN_PLACE: Final = {**_WITH_FETCH, Phase.FETCHING: (0.0, 0.0), Phase.PROBING: (0.0, 1.0),
                    Phase.ENCODING: (1.0, 92.0), Phase.VERIFYING: (92.0, 94.0),
                    Phase.UPLOADING: (94.0, 100.0)}  # fmt: skip


class Progress:
    """Written by the working thread and those that fetch; each value is replaced whole."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._shares = _WITH_FETCH
        self._now = ProgressReport(phase=Phase.FETCHING, percent=0.0)

    def source_is_here(self) -> None:
        """Nothing has to be fetched: the encode takes the fetch's share."""
        self._shares = _IN_PLACE

    def update(
        self,
        phase: Phase,
        fraction: float,
        *,
        speed: float | None = None,
        frame: int | None = None,
        fps: float | None = None,
        eta_s: float | None = None,
    ) -> None:
        with self._lock:
            self._now = ProgressReport(
                phase=phase,
                percent=self._percent(phase, fraction),
                speed=speed,
                frame=frame,
                fps=fps,
                eta_s=eta_s,
            )

    def fetching(self, fraction: float) -> None:
        """So much is here. Once something else goes on meanwhile, that is what is shown."""
        with self._lock:
            if self._now.phase is Phase.FETCHING:
                percent = self._percent(Phase.FETCHING, fraction)
                self._now = ProgressReport(phase=Phase.FETCHING, percent=percent)

    def _percent(self, phase: Phase, fraction: float) -> float:
        begin, end = self._shares[phase]
        percent = begin + (end - begin) * min(1.0, max(0.0, fraction))
        return round(max(self._now.percent, percent), 2)

    @property
    def now(self) -> ProgressReport:
        return self._now
