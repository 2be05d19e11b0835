"""
Make the outputs: one ffmpeg for all of them, then each alone that did not come out right.

The exit code is only a hint. What counts is what ffprobe finds in the files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from encoder_core.clock import Clock
from encoder_core.errors import JobError
from encoder_core.failures import Failure
from encoder_core.media.command import build_encode_command, build_loudness_command
from encoder_core.media.faststart import BadIndex
from encoder_core.media.loudness import list_meters, read_loudness, turn
from encoder_core.media.planned import OutputPlan
from encoder_core.media.verify import Finding, truncated
from encoder_core.parallel import each
from encoder_core.reports import WorkerLimits
from encoder_worker.endings import explain_end
from encoder_worker.following import Followings
from encoder_worker.front import move_index_to_front
from encoder_worker.made import Made
from encoder_worker.source import Source
from encoder_worker.tools import Ended, Tools, run_ffmpeg
from encoder_worker.verify import explain_unreadable, find_files, verify_output

log = logging.getLogger("encoder_worker")

VERIFIED_AT_ONCE: Final = 4  # an ffprobe takes some 60 MB


Replan = Callable[[Sequence[OutputPlan]], list[OutputPlan | Failure]]
"""What plans become once the whole source is known, each or what is wrong with it."""


@dataclass(frozen=True, slots=True)
class EncodeProgress:
    """Where ffmpeg is."""

    out_time_s: float
    speed: float | None
    frame: int | None
    fps: float | None


class Encoder:
    """Makes plans of one source come true in one folder."""

    def __init__(
        self,
        tools: Tools,
        *,
        source: Source,
        images: Mapping[int, Path],
        folder: Path,
        threads: int,
        limits: WorkerLimits,
        clock: Clock,
        followings: Followings,
        replan: Replan | None = None,
        on_progress: Callable[[EncodeProgress], None],
        on_verify: Callable[[], None],
    ) -> None:
        self._tools = tools
        self._source = source
        self._images = images
        self._folder = folder
        self._threads = threads
        self._limits = limits
        self._clock = clock
        self._followings = followings
        self._replan = replan
        self._on_progress = on_progress
        self._on_verify = on_verify
        self._unfinished: dict[int, list[Finding]] = {}

    def make(
        self,
        plans: Sequence[OutputPlan],
        *,
        made: Callable[[Made], None],
        failed: Callable[[OutputPlan, Failure], None],
    ) -> None:
        """Call `made` or `failed` for each plan, once all of a run are looked at."""
        plans = self._measure(plans, failed)
        if not plans:
            return
        ended = self._run(plans)
        self._on_verify()
        alone = len(plans) == 1
        plans, left = self._settle(plans, failed)
        for plan, verdict in zip(plans, self._verify(plans), strict=True):
            if isinstance(verdict, Made):
                made(verdict)
            elif alone:
                failed(plan, _explain(plan, ended, verdict))
            else:
                left.append(plan)
        for plan in left:
            self._prepare(plan)  # all of them first: one may have taken the room of another
        for plan in left:
            ended = self._run([plan])
            (verdict,) = self._verify([plan])
            if isinstance(verdict, Made):
                made(verdict)
            else:
                self._prepare(plan)
                failed(plan, _explain(plan, ended, verdict))

    def _settle(
        self, plans: Sequence[OutputPlan], failed: Callable[[OutputPlan, Failure], None]
    ) -> tuple[Sequence[OutputPlan], list[OutputPlan]]:
        """
        What the run's outputs have to be, now that the whole source is here.

        And those of which ffmpeg would have been told something else: they are made again.
        """
        if self._replan is None:
            return plans, []
        same: list[OutputPlan] = []
        other: list[OutputPlan] = []
        for old, new in zip(plans, self._replan(plans), strict=True):
            if isinstance(new, Failure):
                self._prepare(old)
                failed(old, new)
            else:
                (same if _command(new) == _command(old) else other).append(new)
        if other:
            log.info("planned_otherwise", extra={"outputs": [plan.index for plan in other]})
        return same, other

    def _verify(self, plans: Sequence[OutputPlan]) -> list[Made | list[Finding]]:
        """
        What became of each. Whatever was sent of one that is not what was planned is dropped.

        Several at once: most of it is waiting for an ffprobe to start.
        """

        def look(plan: OutputPlan) -> Made | list[Finding]:
            return self._unfinished.get(plan.index) or verify_output(
                self._tools, plan, self._folder
            )

        verdicts = each(look, plans, at_once=max(1, min(self._threads, VERIFIED_AT_ONCE)))
        for plan, verdict in zip(plans, verdicts, strict=True):
            if not isinstance(verdict, Made):
                self._followings.drop(plan.index)
        return verdicts

    def _measure(
        self, plans: Sequence[OutputPlan], failed: Callable[[OutputPlan, Failure], None]
    ) -> list[OutputPlan]:
        """Find the gains of sounds that are to have a loudness; others cost no run."""
        meters = list_meters(plans)
        if not meters:
            return list(plans)
        with self._source.opened() as opened:
            arguments = build_loudness_command(meters, source=opened.name, threads=self._threads)
            ended = run_ffmpeg(
                self._tools,
                arguments,
                opened.box,
                self._folder,
                clock=self._clock,
                stall_s=self._limits.stall_s,
                on_progress=lambda block: None,
                is_held=opened.is_held,
            )
        measured = read_loudness(ended.log, meters) if ended.code == 0 else {}
        log.info("loudness_measured", extra={"exit_code": ended.code, "sounds": len(measured)})
        ready = []
        for plan in plans:
            if measured.keys() >= set(list_meters([plan])):
                ready.append(turn(plan, measured))
            else:
                unmeasured = [truncated("The loudness of the sound could not be measured.")]
                failed(plan, _explain(plan, ended, unmeasured))
        return ready

    def _run(self, plans: Sequence[OutputPlan]) -> Ended:
        for plan in plans:
            self._prepare(plan)
        limits, folder = self._limits, self._folder
        images = {plan.index: self._images[plan.index] for plan in plans if plan.has_watermark}
        with self._source.opened(write=(folder,), file_bytes=limits.output_bytes) as opened:
            arguments = build_encode_command(
                plans,
                source=opened.name,
                images={index: str(path) for index, path in images.items()},
                folder=str(folder),
                threads=self._threads,
            )
            for plan in plans:
                self._followings.start(plan, folder / plan.file_name)
            ended = run_ffmpeg(
                self._tools,
                arguments,
                replace(opened.box, read=(*opened.box.read, *images.values())),
                folder,
                clock=self._clock,
                stall_s=limits.stall_s,
                on_progress=lambda block: self._on_progress(read_progress(block)),
                is_held=opened.is_held,
            )
        outputs = [plan.index for plan in plans]
        log.info("ffmpeg_ended", extra={"exit_code": ended.code, "outputs": outputs})
        for line in ended.log.splitlines():
            log.info("ffmpeg", extra={"line": line})
        for plan in plans:
            self._finish(plan)
        return ended

    def _finish(self, plan: OutputPlan) -> None:
        """Do what an encoder that was followed had to leave undone."""
        self._unfinished.pop(plan.index, None)
        path = self._folder / plan.file_name
        following = self._followings.get(plan.index)
        if following is None or not path.is_file():
            return
        try:
            following.settle(lambda: move_index_to_front(path) if plan.moves_index else 0)
        except BadIndex as error:
            self._unfinished[plan.index] = [truncated(f"It is not whole: {error}.")]
        except OSError as error:
            self._unfinished[plan.index] = [explain_unreadable(error)]

    def _prepare(self, plan: OutputPlan) -> None:
        """Away with what an earlier run left: a set with a file too many is not the plan's."""
        self._followings.drop(plan.index)
        for path in find_files(plan, self._folder):
            path.unlink()
        if plan.package is not None:
            (self._folder / str(plan.index)).mkdir(exist_ok=True)


def _command(plan: OutputPlan) -> list[str]:
    """What ffmpeg is told of an output, wherever it reads and writes."""
    images = {plan.index: "image"} if plan.has_watermark else {}
    return build_encode_command([plan], source="source", images=images, folder="out", threads=1)


def read_progress(block: dict[str, str]) -> EncodeProgress:
    """One block of `-progress`, in which anything may be `N/A`."""
    microseconds = _number(block.get("out_time_us"))
    speed = _number(block.get("speed", "").removesuffix("x"))
    frame = _number(block.get("frame"))
    return EncodeProgress(
        out_time_s=max(0.0, (microseconds or 0.0) / 1e6),
        speed=speed,
        frame=None if frame is None else int(frame),
        fps=_number(block.get("fps")),
    )


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _explain(plan: OutputPlan, ended: Ended, findings: Sequence[Finding]) -> Failure:
    """The most telling reason: what the machine lacked, what ffmpeg said, what is wrong."""
    error = explain_end(ended)
    if error is None:
        message = " ".join(finding.message for finding in findings)
        error = JobError(findings[0].code, message, detail=ended.log)
    return error.failure.model_copy(update={"output": plan.index})
