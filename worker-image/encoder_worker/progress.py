"""How far the attempt is, in one number that never goes back."""

from __future__ import annotations

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
    """Written by the working thread, read by the reporting one; each value is replaced whole."""

    def __init__(self) -> None:
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
        begin, end = self._shares[phase]
        percent = begin + (end - begin) * min(1.0, max(0.0, fraction))
        self._now = ProgressReport(
            phase=phase,
            percent=round(max(self._now.percent, percent), 2),
            speed=speed,
            frame=frame,
            fps=fps,
            eta_s=eta_s,
        )

    @property
    def now(self) -> ProgressReport:
        return self._now
