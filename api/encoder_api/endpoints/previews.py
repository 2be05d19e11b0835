"""Look before you leap: what a source is, and what a job would become."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field, StringConstraints
from starlette.responses import Response

from encoder_api.contract import Call, Reply, Scope, answer, operation
from encoder_api.endpoints.jobs import ACCEPTING, EXAMPLE, accept_job
from encoder_api.intake import check_job
from encoder_core.errors import FieldProblem, InvalidRequest
from encoder_core.media.explain import PlanDocument, explain_plan
from encoder_core.media.probe import Probe, parse_probe
from encoder_core.model import NOT_BOOLEAN, Model
from encoder_core.specs import JobRequest, OutputSpec
from encoder_db import pools
from encoder_db.intake import check_size

TAG: Final = "previews"
MAX_STREAMS: Final = 64

Word = Annotated[str, StringConstraints(max_length=256)]
Ratio = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}[:/][0-9]{1,9}$")]
Digits = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,15}$")]
Decimal = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,12}(\.[0-9]{1,12})?$")]
Count = Annotated[int, Field(ge=0, le=10**15), NOT_BOOLEAN] | Digits
Seconds = Annotated[float, Field(ge=0, le=10**9), NOT_BOOLEAN] | Decimal
Start = (
    Annotated[float, Field(ge=-(10**9), le=10**9), NOT_BOOLEAN]
    | Annotated[str, StringConstraints(pattern=r"^-?[0-9]{1,12}(\.[0-9]{1,12})?$")]
)


class _Printed(Model):
    """Part of what ffprobe prints, under its names. What is not read here is passed over."""

    model_config = ConfigDict(alias_generator=None, extra="ignore")


class PrintedDisposition(_Printed):
    default: Annotated[int, Field(ge=0, le=1), NOT_BOOLEAN] = 0
    attached_pic: Annotated[int, Field(ge=0, le=1), NOT_BOOLEAN] = 0
    forced: Annotated[int, Field(ge=0, le=1), NOT_BOOLEAN] = 0


class PrintedTags(_Printed):
    language: Word | None = None
    rotate: Annotated[str, StringConstraints(pattern=r"^-?[0-9]{1,4}$")] | None = None


class PrintedSideData(_Printed):
    rotation: Annotated[float, Field(ge=-360, le=360), NOT_BOOLEAN] | None = None


class PrintedStream(_Printed):
    """A stream, in ffprobe's words."""

    index: Annotated[int, Field(ge=0, le=100_000), NOT_BOOLEAN]
    codec_type: Word
    codec_name: Word | None = None
    width: Annotated[int, Field(ge=0, le=65_535), NOT_BOOLEAN] | None = None
    height: Annotated[int, Field(ge=0, le=65_535), NOT_BOOLEAN] | None = None
    pix_fmt: Word | None = None
    sample_aspect_ratio: Ratio | None = None
    avg_frame_rate: Ratio | None = None
    r_frame_rate: Ratio | None = None
    field_order: Word | None = None
    color_transfer: Word | None = None
    color_primaries: Word | None = None
    color_space: Word | None = None
    bits_per_raw_sample: Count | None = None
    nb_frames: Count | None = None
    bit_rate: Count | None = None
    duration: Seconds | None = None
    start_time: Start | None = None
    channels: Annotated[int, Field(ge=0, le=255), NOT_BOOLEAN] | None = None
    channel_layout: Word | None = None
    sample_rate: Count | None = None
    disposition: PrintedDisposition | None = None
    tags: PrintedTags | None = None
    side_data_list: Annotated[list[PrintedSideData], Field(max_length=64)] | None = None


class PrintedFormat(_Printed):
    """The container, in ffprobe's words."""

    format_name: Word | None = None
    duration: Seconds | None = None
    size: Count | None = None


class ProbeResult(Model):
    """
    What is known of a source: the `sourceInfo` of a job, or the output of
    `ffprobe -of json -show_format -show_streams`.
    """

    model_config = ConfigDict(extra="ignore")

    streams: Annotated[list[PrintedStream], Field(max_length=MAX_STREAMS)]
    format: PrintedFormat | None = None
    """Of ffprobe."""
    container: Word | None = None
    """Of `sourceInfo`, like the next two."""
    duration_s: Annotated[float, Field(ge=0, le=10**9), NOT_BOOLEAN] | None = None
    size_bytes: Annotated[int, Field(ge=0, le=10**15), NOT_BOOLEAN] | None = None

    def to_probe(self) -> Probe:
        found: dict[str, Any] = {
            "format_name": self.container,
            "duration": self.duration_s,
            "size": self.size_bytes,
        }
        if self.format is not None:
            found |= self.format.model_dump(exclude_none=True)
        streams = [stream.model_dump(exclude_none=True) for stream in self.streams]
        document = {"format": {k: v for k, v in found.items() if v is not None}, "streams": streams}
        return parse_probe(document)


class PlanRequest(JobRequest):
    """A job that is not submitted, and what is known of its source."""

    probe: ProbeResult | None = None
    """Left out, the plan is for a usual source: 1920x1080 at 30 frames a second, stereo."""


class ProbeRequest(JobRequest):
    """The body of `POST /probe`: a job without outputs."""

    outputs: Annotated[list[OutputSpec], Field(max_length=0)] = []
    """A probe has none."""


@operation(
    "POST",
    "/plan",
    tag=TAG,
    scope=Scope.JOBS_READ,
    body=PlanRequest,
    body_limit=lambda services: services.settings.max_body_bytes,
    replies={200: Reply(says="What the job would become.", model=PlanDocument)},
    examples={"Without a probe": EXAMPLE},
)
def plan_job(call: Call[PlanRequest, None]) -> Response:
    """
    Plan a job without submitting it: sizes, codecs, the ffmpeg command, what it needs.

    Takes the body of `POST /jobs` and refuses what that would refuse. Nothing is stored, fetched
    or run. What only this source makes impossible is said at the output that it concerns.
    """
    request = call.body
    check_job(request, files_root=call.services.settings.files_root)
    check_size(request.model_copy(update={"probe": None}))
    with call.services.store.read() as tx:
        if not pools.has_pool(tx, request.pool):
            raise InvalidRequest([FieldProblem("/pool", "pool_unknown", "there is no such pool")])
    probe = None if request.probe is None else request.probe.to_probe()
    return answer(explain_plan(request, probe))


@operation(
    "POST",
    "/probe",
    tag=TAG,
    scope=Scope.JOBS_WRITE,
    body=ProbeRequest,
    body_limit=lambda services: services.settings.max_body_bytes,
    examples={
        "An https source": {"source": {"kind": "https", "url": "https://media.example/in.mov"}}
    },
    **ACCEPTING,
)
async def probe_source(call: Call[ProbeRequest, None]) -> Response:
    """
    Find out what a source is.

    A job without outputs, which waits for its turn like any other: its `sourceInfo` is the answer,
    and its `notificationUrl` is told. The service itself never fetches what a request names.
    """
    return await accept_job(call)
