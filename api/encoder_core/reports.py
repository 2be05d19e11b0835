"""
The protocol between a worker and the record: a work order in, reports out, an answer to each.

A local child gets the order as the first line of its standard input, writes one report a line to
its standard output and reads one answer a line; when its standard input closes, its parent is gone
and it ends. In a Pod the order is a mounted file and each report is posted to `report_url`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import Field

from encoder_core.failures import Failure, Warned
from encoder_core.model import NOT_BOOLEAN, Model, Secret
from encoder_core.specs import OutputSpec, Source
from encoder_core.states import OutputStatus

REPORT_INTERVAL_S: Final = (
    2.0  # a progress report is one UPDATE of a tiny row; people look no faster
)
PUBLISH_LEASE_S: Final = 120.0
"""How long an accepted report allows a worker to publish. See DESIGN "Publish lease"."""


MAX_LOG_CHARS: Final = 32 * 1024
"""Of an attempt's log that is kept: its end, where the reason is."""


Whole = Annotated[int, Field(ge=0, le=2**63 - 1), NOT_BOOLEAN]  # what a database can store
Number = Annotated[float, NOT_BOOLEAN]


class Phase(StrEnum):
    """What a worker is doing, in the order it happens."""

    FETCHING = "fetching"
    PROBING = "probing"
    ENCODING = "encoding"
    VERIFYING = "verifying"
    UPLOADING = "uploading"
    DONE = "done"


class Milestone(StrEnum):
    """What a worker has behind it. Phases say what is going on; these say when it was over."""

    FETCHED = "fetched"  #: The whole source was read.
    ENCODED = "encoded"  #: ffmpeg has made the last output.
    VERIFIED = "verified"  #: The last output was found to be what was planned.
    UPLOADED = "uploaded"  #: The last destination confirmed.


class OrderedOutput(Model):
    """An output that this attempt has to make, under its index in the job."""

    index: Annotated[int, Field(ge=0)]
    spec: OutputSpec
    encoded_path: str | None = None
    """A file that an earlier attempt encoded and verified: only its delivery is missing."""
    image_path: str | None = None
    """Where the bytes of an inline watermark are, for a local child."""


class AmbientCredentials(Model):
    """What the installation lends to requests without credentials of their own."""

    access_key_id: Secret | None = None
    access_key_secret: Secret | None = None
    session_token: Secret | None = None
    region: str | None = None
    buckets: list[str] | None = None
    """`ENCODER_S3_AMBIENT_BUCKETS`: the only buckets they may be used for; None is all."""
    use_chain: bool = True
    """Go on to the credentials file and the machine's role, as boto3 does by itself."""


class WorkerLimits(Model):
    """What one attempt may use. Enforced by the worker; a Pod's limits come on top."""

    source_bytes: int = 100 * 1024**3
    source_min_bytes_per_s: int = 1024
    """Slower than this for `stall_s` and the source counts as dead."""
    stall_s: float = 60.0
    """A fetch, an ffprobe or an ffmpeg in which nothing moves for this long has stalled."""
    output_bytes: int = 1024**4
    """The largest file that ffmpeg may write."""
    deadline_s: float = 24 * 3600.0
    threads: int | None = None
    """None: by the cgroup's CPU limit."""
    strict_sandbox: bool = False
    """Refuse to run where the kernel cannot lock ffmpeg in."""


class WorkOrder(Model):
    """Everything one attempt needs. Holds secrets in clear: never logged, never stored as it is."""

    job_id: int
    job_uuid: UUID
    attempt: Annotated[int, Field(ge=1)]
    request_id: str | None = None
    """Of the request that made the job: in each line that the worker logs."""
    token: Secret
    source: Source
    outputs: list[OrderedOutput]
    """Only those that are not uploaded yet. Empty: probe the source and report what it is."""
    inline_path: str | None = None
    """Where an inline source's bytes are, for a local child."""
    inline_url: str | None = None
    """
    Where a Pod fetches them, with the attempt's token as `Authorization: Bearer`: below it `0` is
    the source, and N + 1 the image of the watermark of output N.
    """
    scratch_dir: str
    files_root: str | None = None
    """None: `kind: file` is refused."""
    report_url: str | None = None
    """None: reports go to the standard output."""
    allowed_cidrs: list[str] = []
    """Private networks that sources and destinations may be in."""
    denied_cidrs: list[str] = []
    """Networks that they may not be in, whatever else is said of them."""
    ambient: AmbientCredentials = AmbientCredentials()
    limits: WorkerLimits = WorkerLimits()


class OutputFile(Model):
    """One delivered file."""

    url: str
    """Where it is, without credentials."""
    size_bytes: Whole
    sha256: str
    content_type: str


class MadeSound(Model):
    """One sound of an uploaded output."""

    name: str | None = None
    """Of a package: a part of its files' names, such as `audio-de`."""
    language: str | None = None
    """By BCP 47, where the source tells."""
    codec: str
    channels: Whole
    duration_s: Number | None = None


class MadeSubtitles(Model):
    """One of the subtitles of an uploaded output."""

    name: str | None = None
    """Of a package: a part of its file's name, such as `subtitles-de`."""
    language: str | None = None
    """By BCP 47, where the source tells."""
    codec: str
    forced: bool = False


class OutputResult(Model):
    """What an uploaded output really is, as ffprobe measured it before delivery."""

    files: list[OutputFile]
    """The main file first; a set (HLS, thumbnails) has more."""
    size_bytes: Whole
    duration_s: Number | None = None
    container: str | None = None
    video_codec: str | None = None
    width: Whole | None = None
    height: Whole | None = None
    frame_rate: Number | None = None
    frames: Whole | None = None
    video_bitrate: Whole | None = None
    audio_codec: str | None = None
    audio_channels: Whole | None = None
    audio_sample_rate: Whole | None = None
    audio_tracks: list[MadeSound] = []
    """All sounds, the one that players take by default first."""
    subtitles: list[MadeSubtitles] = []


class SourceInfo(Model):
    """What the source turned out to be."""

    size_bytes: Whole | None = None
    duration_s: Number | None = None
    container: str | None = None
    streams: list[dict[str, Any]] = []


class Started(Model):
    """The first report: the worker is alive. Moves the job to running."""

    type: Literal["started"] = "started"
    sandbox: list[str] = []
    """Which layers round ffmpeg are active."""


class ProgressReport(Model):
    """How far it is. The last one wins; a lost one is not missed."""

    type: Literal["progress"] = "progress"
    phase: Phase
    percent: Annotated[float, Field(ge=0, le=100), NOT_BOOLEAN]
    """Of the whole attempt, never decreasing."""
    speed: Number | None = None
    """Seconds of media a second."""
    frame: Whole | None = None
    fps: Number | None = None
    eta_s: Number | None = None


class SourceReport(Model):
    """What the source is, once probed."""

    type: Literal["source"] = "source"
    source: SourceInfo
    warnings: list[Warned] = []


class OutputReport(Model):
    """One output changed its status. `uploaded` is final and true: verified and confirmed."""

    type: Literal["output"] = "output"
    index: Whole
    status: OutputStatus
    result: OutputResult | None = None
    failure: Failure | None = None
    warnings: list[Warned] = []


class LogReport(Model):
    """The end of the worker's log. The last one wins; a lost one is not missed."""

    type: Literal["log"] = "log"
    tail: Annotated[str, Field(max_length=MAX_LOG_CHARS)]
    """Without secrets: whoever logs blanks them."""
    lines: Annotated[int, Field(ge=0, le=2**32 - 1), NOT_BOOLEAN]
    """Of the whole log; the tail has the last of them."""


class Outcome(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class FinalReport(Model):
    """The worker's last word. Gives the details; the exit code decides."""

    type: Literal["final"] = "final"
    outcome: Outcome
    failure: Failure | None = None
    retry_after_s: Number | None = None
    """What the other side asked for, as with HTTP's Retry-After."""
    outputs: list[OutputReport] = []
    reached: dict[Milestone, Number] = {}
    """Seconds after its first report, by the worker's own clock, which need not agree with ours."""


Report = Annotated[
    Started | ProgressReport | LogReport | SourceReport | OutputReport | FinalReport,
    Field(discriminator="type"),
]


class Envelope(Model):
    """A report with what proves that it comes from the current attempt."""

    job_uuid: UUID
    attempt: Whole
    token: Secret
    report: Report


class Answer(Model):
    """What the record says to a report."""

    accepted: bool
    """False: the attempt is not current any more. The worker ends without publishing."""
    cancel: bool = False
    """The job is being canceled: stop, and say so."""
    publish_lease_s: float = 0.0
    """From now on, for how long outputs may be published without another answer."""
