"""One attempt of one job, in the order in which it happens."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from encoder_core.clock import Clock
from encoder_core.egress import Dialler
from encoder_core.errors import InvalidRequest, JobError
from encoder_core.exits import Exit, exit_for
from encoder_core.failures import Failure, failure
from encoder_core.media.plan import depends_on_length, plan_output
from encoder_core.media.planned import OutputPlan
from encoder_core.media.probe import Probe
from encoder_core.redaction import Redactor
from encoder_core.reports import (
    FinalReport,
    Milestone,
    OrderedOutput,
    Outcome,
    OutputReport,
    Phase,
    SourceReport,
    Started,
    WorkOrder,
)
from encoder_core.specs import InlineSource, OutputSpec
from encoder_core.specs import Source as Place
from encoder_core.states import OutputStatus
from encoder_core.storage import open_in_parts, open_source
from encoder_core.storage.base import Access, PartsUpload, SourceConnector
from encoder_core.storage.failing import RangeIgnored
from encoder_worker.control import Control, Stopped
from encoder_worker.cpu import count_threads
from encoder_worker.deliver import deliver, describe
from encoder_worker.encode import EncodeProgress, Encoder, Replan
from encoder_worker.examine import examine_source, measure_source
from encoder_worker.fetch import Fetch
from encoder_worker.following import Followings, can_follow
from encoder_worker.images import Images
from encoder_worker.made import Made
from encoder_worker.manifest import Encoded, Manifest, find_encoded
from encoder_worker.progress import Progress
from encoder_worker.reporter import Reporter
from encoder_worker.sandbox import can_limit_ports, require_layers
from encoder_worker.source import Source, arriving
from encoder_worker.summary import describe_source
from encoder_worker.tools import Tools, find_tools

log = logging.getLogger("encoder_worker")


@dataclass(slots=True)
class Attempt:
    """What the steps of one attempt share."""

    order: WorkOrder
    reporter: Reporter
    control: Control
    progress: Progress
    clock: Clock
    redact: Redactor
    reports: dict[int, OutputReport] = field(default_factory=dict)
    """The last word on each output."""
    retry_after_s: float | None = None
    began_s: float = 0.0
    """On its clock, when the record had answered its first report."""
    reached: dict[Milestone, float] = field(default_factory=dict)
    dialler: Dialler = field(init=False)
    """One for all that it reaches, so that it knows how often a host was refused."""

    def __post_init__(self) -> None:
        self.dialler = Dialler(self.order.allowed_cidrs, self.order.denied_cidrs)

    @property
    def folder(self) -> Path:
        return Path(self.order.scratch_dir)

    @property
    def access(self) -> Access:
        order = self.order
        return Access(
            dialler=self.dialler,
            files_root=Path(order.files_root) if order.files_root else None,
            ambient=order.ambient,
            clock=self.clock,
            before_publish=self.control.wait_for_lease,
        )

    def begin(self, layers: Sequence[str]) -> None:
        """Say that the worker is there; its times count from here."""
        log.info("attempt_started", extra={"outputs": len(self.order.outputs), "sandbox": layers})
        self.reporter.send_and_wait(Started(sandbox=list(layers)))
        self.began_s = self.clock.monotonic()

    def reach(self, milestone: Milestone) -> None:
        """A step is over. Of one that is repeated, the last time counts."""
        seconds = round(self.clock.monotonic() - self.began_s, 3)
        self.reached[milestone] = seconds
        log.info(milestone.value, extra={"after_s": seconds})

    def tell(self, report: OutputReport) -> None:
        self.reports[report.index] = report
        self.reporter.send(report)
        fields: dict[str, object] = {"output": report.index}
        if report.failure is not None:
            fields |= {"failure": report.failure.code, "why": report.failure.message}
        if report.warnings:
            fields["warnings"] = [warning.code for warning in report.warnings]
        log.info(f"output_{report.status.value}", extra=fields)

    def clean(self, why: Failure) -> Failure:
        """Without our secrets: ffmpeg and servers repeat what they were given."""
        detail = self.redact(why.detail) if why.detail else None
        return why.model_copy(update={"message": self.redact(why.message), "detail": detail})

    def fail(self, index: int, why: Failure) -> None:
        why = self.clean(why).model_copy(update={"output": index})
        self.tell(OutputReport(index=index, status=OutputStatus.FAILED, failure=why))


def run(attempt: Attempt) -> tuple[Exit, FinalReport]:
    """Do the work. Every failure ends in the report; Stopped too, with what had been delivered."""
    try:
        limits = attempt.order.limits
        tools = find_tools(stall_s=limits.stall_s)
        attempt.begin(tools.layers)
        if limits.strict_sandbox:
            require_layers(tools.layers)
        ready = find_ready(attempt)
        missing = [output for output in attempt.order.outputs if output.index not in ready]
        deliver_all(attempt, ready)
        if missing or not attempt.order.outputs:
            make_outputs(attempt, tools, missing)
        attempt.control.finish()
        return conclude(attempt)
    except JobError as error:
        attempt.control.finish()
        return give_up(attempt, error)
    except Stopped as stopped:
        return stop(attempt, stopped)


def make_outputs(attempt: Attempt, tools: Tools, missing: Sequence[OrderedOutput]) -> None:
    """Fetch, probe, plan, encode, verify, deliver."""
    with Followings(attempt.clock) as followings:
        try:
            encoded = encode_source(attempt, tools, missing, followings)
        except JobError as error:
            if error.code != "source_changed" and not isinstance(error, RangeIgnored):
                raise
            # Nothing that was made of the bytes so far is kept; once more, from the first one.
            encoded = encode_source(attempt, tools, missing, followings)
        attempt.reach(Milestone.VERIFIED)
        deliver_all(attempt, encoded, followings)


def encode_source(
    attempt: Attempt, tools: Tools, missing: Sequence[OrderedOutput], followings: Followings
) -> dict[int, Encoded]:
    with fetch(attempt, tools) as source:
        early = not any(depends_on_length(output.spec) for output in missing)
        probe = examine(attempt, tools, source, early=early)
        plans = plan(attempt, missing, probe, followings)
        images = fetch_images(attempt, tools, missing, plans)
        ready = [plan for plan in plans if plan.index in images or not plan.has_watermark]
        look_again = Replanning(attempt, tools, source, probe) if probe.needs_measuring else None
        return encode(attempt, tools, source, ready, images, followings, look_again)


# --- The steps -------------------------------------------------------------------------------


def find_ready(attempt: Attempt) -> dict[int, Encoded]:
    """Outputs that an earlier attempt encoded and verified."""
    found = {output.index: find_encoded(output, attempt.folder) for output in attempt.order.outputs}
    return {index: encoded for index, encoded in found.items() if encoded is not None}


@contextmanager
def fetch(attempt: Attempt, tools: Tools) -> Iterator[Source]:
    """
    The source under a name of ours, where that is possible before it is whole.

    A user's name would be read by ffmpeg as a pattern, and by its ending.
    """
    attempt.folder.mkdir(parents=True, exist_ok=True)
    path = attempt.folder / "source"
    path.unlink(missing_ok=True)
    connector = connect_source(attempt)
    if connector.local_path is not None:
        if connector.open().stat.size_bytes == 0:
            raise JobError("source_invalid", "The source is empty.")
        path.symlink_to(connector.local_path.resolve())
        attempt.progress.source_is_here()
        attempt.reach(Milestone.FETCHED)
        yield Source(path)
        return
    coming = Fetch(
        connector,
        path,
        limits=attempt.order.limits,
        clock=attempt.clock,
        on_progress=attempt.progress.fetching,
        on_complete=lambda: attempt.reach(Milestone.FETCHED),
    )
    with arriving(coming, path, can_serve=can_limit_ports(tools.layers)) as source:
        yield source


def connect_source(attempt: Attempt) -> SourceConnector:
    order = attempt.order
    path = Path(order.inline_path) if order.inline_path else None
    return connect(attempt, order.source, path, number=0)


def connect_image(attempt: Attempt, output: OrderedOutput) -> SourceConnector:
    assert output.spec.watermark is not None
    path = Path(output.image_path) if output.image_path else None
    return connect(attempt, output.spec.watermark.source, path, number=output.index + 1)


def connect(
    attempt: Attempt, place: Place, inline_path: Path | None, *, number: int
) -> SourceConnector:
    """Where something is. What came inline is with the API when a Pod runs the attempt."""
    order = attempt.order
    if order.inline_url is None or not isinstance(place, InlineSource):
        return open_source(place, replace(attempt.access, inline_path=inline_path))
    from encoder_worker.inline import InlineFromApi  # a local child never needs urllib3 for it

    return InlineFromApi(
        f"{order.inline_url}/{number}",
        order.token,
        size_bytes=place.size_bytes,
        clock=attempt.clock,
    )


def examine(attempt: Attempt, tools: Tools, source: Source, *, early: bool) -> Probe:
    if not source.arriving:
        attempt.progress.update(Phase.PROBING, 0.0)
    probe, document = examine_source(tools, source, attempt.folder, early=early)
    attempt.reporter.send(SourceReport(source=describe_source(document, probe)))
    return probe


def plan(
    attempt: Attempt, missing: Sequence[OrderedOutput], probe: Probe, followings: Followings
) -> list[OutputPlan]:
    """What can be made. The rest fails here, with the fields that are wrong."""
    plans = []
    for output in missing:
        try:
            planned = plan_output(output.index, output.spec, probe)
        except InvalidRequest as error:
            attempt.fail(output.index, failure("request_impossible", f"{error}."))
            continue
        plans.append(follow(attempt, output.spec, planned, probe, followings))
        attempt.tell(
            OutputReport(
                index=output.index,
                status=OutputStatus.RUNNING,
                warnings=list(planned.warnings),
            )
        )
    return plans


def fetch_images(
    attempt: Attempt,
    tools: Tools,
    missing: Sequence[OrderedOutput],
    plans: Sequence[OutputPlan],
) -> dict[int, Path]:
    """The images of watermarks. An output whose image cannot be had fails here, and no other."""
    marked = {plan.index for plan in plans if plan.has_watermark}

    def failed(index: int, error: JobError) -> None:
        attempt.retry_after_s = error.retry_after_s or attempt.retry_after_s
        attempt.fail(index, error.failure)

    images = Images(
        tools,
        attempt.folder / "images",
        limits=attempt.order.limits,
        clock=attempt.clock,
        connect=lambda output: connect_image(attempt, output),
    )
    return images.bring([output for output in missing if output.index in marked], failed=failed)


def follow(
    attempt: Attempt, spec: OutputSpec, plan: OutputPlan, probe: Probe, followings: Followings
) -> OutputPlan:
    """The plan of an output that is sent while it is written, where that can be."""
    if not can_follow(plan, spec.destination, probe):
        return plan

    def begin() -> PartsUpload:
        connector = open_in_parts(spec.destination, attempt.access)
        return connector.begin(plan.kind.content_type)

    followings.allow(plan.index, begin)
    return replace(plan, followed=True)


@dataclass(frozen=True, slots=True)
class Replanning:
    """What was planned by the header of a source that arrived meanwhile, planned by its packets."""

    attempt: Attempt
    tools: Tools
    source: Source
    probe: Probe

    def __call__(self, plans: Sequence[OutputPlan]) -> list[OutputPlan | Failure]:
        """Each anew, or what is wrong with it. Raises what measure_source does."""
        probe = measure_source(self.tools, self.source, self.attempt.folder, self.probe)
        specs = {output.index: output.spec for output in self.attempt.order.outputs}

        def again(old: OutputPlan) -> OutputPlan | Failure:
            try:
                new = plan_output(old.index, specs[old.index], probe)
            except InvalidRequest as error:
                return failure("request_impossible", f"{error}.")
            return replace(new, followed=old.followed)

        return [again(plan) for plan in plans]


def encode(
    attempt: Attempt,
    tools: Tools,
    source: Source,
    plans: Sequence[OutputPlan],
    images: Mapping[int, Path],
    followings: Followings,
    replan: Replan | None,
) -> dict[int, Encoded]:
    """Encode and verify; what came out right is kept for delivery, by this attempt or another."""
    folder = attempt.folder / "out"
    folder.mkdir(exist_ok=True)
    manifest = Manifest(attempt.folder)
    specs = {output.index: output.spec for output in attempt.order.outputs}
    encoded: dict[int, Encoded] = {}

    def keep(made: Made) -> None:
        index = made.plan.index
        encoded[index] = describe(made, specs[index], followings.get(index))
        manifest.add(index, encoded[index])

    longest = max((plan.duration_s or 0.0 for plan in plans), default=0.0)
    encoder = Encoder(
        tools,
        source=source,
        images=images,
        folder=folder,
        threads=attempt.order.limits.threads or count_threads(),
        limits=attempt.order.limits,
        clock=attempt.clock,
        followings=followings,
        replan=replan,
        on_progress=lambda now: show(attempt, now, longest),
        on_verify=lambda: begin_to_verify(attempt),
    )
    encoder.make(plans, made=keep, failed=lambda plan, why: attempt.fail(plan.index, why))
    return encoded


def begin_to_verify(attempt: Attempt) -> None:
    attempt.progress.update(Phase.VERIFYING, 0.0)
    attempt.reach(Milestone.ENCODED)


def show(attempt: Attempt, now: EncodeProgress, duration_s: float) -> None:
    left = duration_s - now.out_time_s
    attempt.progress.update(
        Phase.ENCODING,
        now.out_time_s / duration_s if duration_s else 0.0,
        speed=now.speed,
        frame=now.frame,
        fps=now.fps,
        eta_s=round(max(0.0, left) / now.speed, 1) if now.speed and duration_s else None,
    )


def deliver_all(
    attempt: Attempt, encoded: dict[int, Encoded], followings: Followings | None = None
) -> None:
    """One after another, so that the first is announced while the rest is under way."""
    specs = {output.index: output.spec for output in attempt.order.outputs}
    for number, (index, output) in enumerate(sorted(encoded.items())):
        attempt.progress.update(Phase.UPLOADING, number / len(encoded))
        try:
            following = followings.get(index) if followings else None
            result = deliver(output, specs[index], attempt.access, following)
        except JobError as error:
            attempt.retry_after_s = error.retry_after_s or attempt.retry_after_s
            attempt.fail(index, error.failure)
            continue
        attempt.tell(
            OutputReport(
                index=index,
                status=OutputStatus.UPLOADED,
                result=result,
                warnings=output.warnings,
            )
        )
        attempt.reach(Milestone.UPLOADED)


# --- The ends --------------------------------------------------------------------------------


def conclude(attempt: Attempt) -> tuple[Exit, FinalReport]:
    """The whole is as good as its outputs. A failure worth a retry speaks for the others."""
    failures = [r.failure for r in attempt.reports.values() if r.failure is not None]
    if failures:
        first = next((f for f in failures if f.retryable), failures[0])
        return _failed(attempt, first)
    attempt.progress.update(Phase.DONE, 1.0)
    return Exit.SUCCEEDED, FinalReport(
        outcome=Outcome.SUCCEEDED,
        outputs=list(attempt.reports.values()),
        reached=attempt.reached,
    )


def give_up(attempt: Attempt, error: JobError) -> tuple[Exit, FinalReport]:
    """Nothing more can be made: what is not delivered fails for the same reason."""
    attempt.retry_after_s = error.retry_after_s
    for output in attempt.order.outputs:
        known = attempt.reports.get(output.index)
        if known is None or known.status is OutputStatus.RUNNING:
            attempt.fail(output.index, error.failure)
    return _failed(attempt, error.failure)


def stop(attempt: Attempt, stopped: Stopped) -> tuple[Exit, FinalReport]:
    """Ended from outside. What was delivered stays delivered."""
    canceled = stopped.why.exit is Exit.CANCELED
    final = FinalReport(
        outcome=Outcome.CANCELED if canceled else Outcome.FAILED,
        failure=failure(stopped.why.value),
        outputs=list(attempt.reports.values()),
        reached=attempt.reached,
    )
    return stopped.why.exit, final


def _failed(attempt: Attempt, why: Failure) -> tuple[Exit, FinalReport]:
    final = FinalReport(
        outcome=Outcome.FAILED,
        failure=attempt.clean(why),
        retry_after_s=attempt.retry_after_s,
        outputs=list(attempt.reports.values()),
        reached=attempt.reached,
    )
    return exit_for(why.code, retryable=why.retryable), final
