"""What a caller may ask for: the job request, its source, its outputs and their destinations."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel

from encoder_core.model import NOT_BOOLEAN, FtpUrl, HttpUrl, Instant, Model, Secret
from encoder_core.presets import PresetName, fill_in

MAX_OUTPUTS: Final = 32  # one ffmpeg process makes all of them; more would not fit its memory
MAX_INLINE_BYTES: Final = 16 * 1024 * 1024  # inline is for clips and tests; larger files have a URL
MAX_INLINE_CHARACTERS: Final = (MAX_INLINE_BYTES + 2) // 3 * 4
_INLINE_TOO_LARGE = f"must decode to at most {MAX_INLINE_BYTES} bytes; give larger files by URL"
MAX_AUDIO_TRACKS: Final = 16
MAX_METADATA: Final = 32
MAX_OBJECT_METADATA_BYTES: Final = 2048  # S3's own limit
MAX_PATH_BYTES: Final = 1024  # S3's own limit for a key
MIN_BITRATE: Final = 1_000
MAX_BITRATE: Final = 1_000_000_000
DEFAULT_POOL: Final = "default"
DEFAULT_OWNER: Final = "default"


class Priority(StrEnum):
    """Which of a pool's three queues a job waits in."""

    HIGH = "high"  #: Taken first.
    NORMAL = "normal"
    LOW = "low"  #: Taken when nothing else waits, and now and then so that it never starves.


class Container(StrEnum):
    """What an output file is. Decides the muxer, the extension and the content type."""

    MP4 = "mp4"
    MOV = "mov"
    MKV = "mkv"
    WEBM = "webm"
    TS = "ts"
    HLS = "hls"
    DASH = "dash"
    MP3 = "mp3"
    M4A = "m4a"
    OGG = "ogg"
    OPUS = "opus"
    FLAC = "flac"
    WAV = "wav"
    GIF = "gif"
    JPG = "jpg"
    PNG = "png"
    VTT = "vtt"


BITRATE_PATTERN: Final = r"^([0-9]{1,10})(?:\.([0-9]{1,3}))?([kKmM]?)$"


def parse_bitrate(text: str) -> int:
    """Bits per second of `2500k`, `2.5M` or `2500000`. Raises ValueError."""
    match = re.fullmatch(BITRATE_PATTERN, text)
    if match is None:
        raise ValueError('must be a bit rate such as "2500k", "2.5M" or 2500000 (bits per second)')
    whole, fraction, suffix = match.groups()
    factor = {"": 1, "k": 1000, "m": 1_000_000}[suffix.lower()]
    bits = int(whole) * factor + (int(fraction.ljust(3, "0")) * factor // 1000 if fraction else 0)
    if not MIN_BITRATE <= bits <= MAX_BITRATE:
        raise ValueError("must be between 1k and 1000M")
    return bits


def _accept_bitrate(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return value
    text = str(value)
    parse_bitrate(text)
    return text


_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def _check_path(path: str) -> str:
    if _CONTROL.search(path):
        raise ValueError("must not contain control characters")
    if ".." in path.split("/"):
        raise ValueError("must not contain '..'")
    if not path.strip("/"):
        raise ValueError("must name a file")
    if len(path.encode()) > MAX_PATH_BYTES:
        raise ValueError(f"must have at most {MAX_PATH_BYTES} bytes")
    return path


def _check_header(headers: dict[str, Secret]) -> dict[str, Secret]:
    for name in headers:
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}", name):
            raise ValueError("header names must be HTTP tokens")
        if name.lower() in {"host", "content-length", "transfer-encoding", "connection", "range"}:
            raise ValueError(f"{name} is set by the service")
    return headers


def _check_object_metadata(metadata: dict[str, str]) -> dict[str, str]:
    if sum(map(len, [*metadata, *metadata.values()])) > MAX_OBJECT_METADATA_BYTES:
        raise ValueError(f"names and values must have at most {MAX_OBJECT_METADATA_BYTES} bytes")
    return metadata


def _check_inline_size(data: Any) -> Any:
    # Before anything else, so that the sentence is ours and no large text is decoded for nothing.
    if isinstance(data, str) and len(data) > MAX_INLINE_CHARACTERS:
        raise ValueError(_INLINE_TOO_LARGE)
    return data


def _check_base64(data: str) -> str:
    try:
        decoded = base64.b64decode(data, validate=True)
    except ValueError:  # binascii.Error is one, and so is what non-ASCII text raises
        raise ValueError("must be standard base64 without line breaks") from None
    if len(decoded) > MAX_INLINE_BYTES:
        raise ValueError(_INLINE_TOO_LARGE)
    return data


def _only_text(value: Any) -> Any:
    if not isinstance(value, (str, datetime)):
        raise ValueError(_NO_MOMENT)
    return value


def _in_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(_NO_MOMENT)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(_NO_MOMENT) from None


_NO_MOMENT: Final = "must be a date and time with its zone, such as 2026-03-01T02:00:00Z"

Moment = Annotated[Instant, BeforeValidator(_only_text), AfterValidator(_in_utc)]
Bitrate = Annotated[
    str,
    BeforeValidator(_accept_bitrate),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": BITRATE_PATTERN},
                {"type": "integer", "minimum": MIN_BITRATE, "maximum": MAX_BITRATE},
            ],
            "examples": ["2500k"],
        }
    ),
]
Path = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_PATH_BYTES), AfterValidator(_check_path)
]
InlineData = Annotated[
    str,
    StringConstraints(max_length=MAX_INLINE_CHARACTERS),
    AfterValidator(_check_base64),
    BeforeValidator(_check_inline_size),
]
ObjectMetadata = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")],
        Annotated[str, StringConstraints(pattern=r"^[ -~]{0,1024}$")],
    ],
    Field(max_length=MAX_METADATA),
    AfterValidator(_check_object_metadata),
]
Headers = Annotated[dict[str, Secret], Field(max_length=32), AfterValidator(_check_header)]
Codec = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$"),
    BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value),
]
"""A name that ffmpeg may know. Never begins with a dash: it becomes an argument."""
ContentType = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9.+-]{1,64}/[A-Za-z0-9.+-]{1,64}$")
]
LABEL_PATTERN: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
Label = Annotated[str, StringConstraints(pattern=rf"^{LABEL_PATTERN}$")]
"""A name that Kubernetes takes, too: of a pool, of an owner."""
LANGUAGE_PATTERN: Final = r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}"
Language = Annotated[str, StringConstraints(max_length=35, pattern=rf"^{LANGUAGE_PATTERN}$")]
"""A language as files and browsers name it: de, deu, ger, pt-BR."""
AudioTrack = Annotated[
    str, StringConstraints(max_length=35, pattern=rf"^([1-9][0-9]?|{LANGUAGE_PATTERN})$")
]
"""A language, the number of a track from 1, or `all`."""
FileTag = Literal["title", "artist", "album", "date", "genre", "comment", "copyright"]
"""What every container but ts keeps, under one name or another."""
FileTagValue = Annotated[
    str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]*$")
]
Dimension = Annotated[int, Field(ge=16, le=16384), NOT_BOOLEAN]


class S3Location(Model):
    """An object in S3 or in a store that speaks S3. Field names are the original service's."""

    kind: Literal["s3"]
    bucket: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$")]
    path: Path
    region: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,64}$")] | None = None
    access_key_id: Annotated[Secret | None, Field(alias="access_key_id")] = None
    access_key_secret: Annotated[Secret | None, Field(alias="access_key_secret")] = None
    session_token: Annotated[Secret | None, Field(alias="session_token")] = None
    endpoint: HttpUrl | None = None
    force_path_style: Annotated[bool | None, Field(alias="force_path_style")] = None
    """Default: true when an `endpoint` is given, which is what stores other than AWS expect."""

    @model_validator(mode="after")
    def _keys_come_in_pairs(self) -> Self:
        if (self.access_key_id is None) != (self.access_key_secret is None):
            raise ValueError("access_key_id and access_key_secret must be given together")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("session_token needs access_key_id and access_key_secret")
        return self


class FtpLocation(Model):
    """A file on an FTP server, as host and path or as one URL."""

    kind: Literal["ftp"]
    url: FtpUrl | None = None
    host: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:\[\]-]{1,253}$")] | None = None
    port: Annotated[int, Field(ge=1, le=65535), NOT_BOOLEAN] | None = None
    user: Secret | None = None
    password: Secret | None = None
    path: Path | None = None
    tls: bool | None = None
    """Explicit TLS (AUTH TLS) on the control and the data connection."""

    @model_validator(mode="after")
    def _url_or_parts(self) -> Self:
        parts = (self.host, self.port, self.user, self.password, self.path)
        if self.url is not None and any(part is not None for part in parts):
            raise ValueError("give either url, or host and path, not both")
        if self.url is None and (self.host is None or self.path is None):
            raise ValueError("give url, or host and path")
        return self


class FileLocation(Model):
    """A file under `ENCODER_FILES_ROOT`; only the one-machine engine can see it."""

    kind: Literal["file"]
    path: Path


class HttpSource(Model):
    kind: Literal["http", "https"]
    url: HttpUrl
    headers: Headers | None = None


class InlineSource(Model):
    """Bytes in the request itself. Stored as a blob; the job keeps only their number."""

    kind: Literal["inline"]
    data: InlineData | None = None
    size_bytes: Annotated[int, Field(ge=0), NOT_BOOLEAN] | None = None
    """Set by the service once the bytes are stored. Not for callers."""


class S3Source(S3Location):
    pass


class FtpSource(FtpLocation):
    pass


class FileSource(FileLocation):
    pass


Source = Annotated[
    S3Source | HttpSource | FtpSource | InlineSource | FileSource, Field(discriminator="kind")
]


class S3Destination(S3Location):
    acl: (
        Literal[
            "private",
            "public-read",
            "public-read-write",
            "authenticated-read",
            "aws-exec-read",
            "bucket-owner-read",
            "bucket-owner-full-control",
        ]
        | None
    ) = None
    content_type: (
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.+-]{1,64}/[A-Za-z0-9.+-]{1,64}$")]
        | None
    ) = None
    """Default: by the container."""
    cache_control: Annotated[str, StringConstraints(pattern=r"^[ -~]{1,256}$")] | None = None
    """What caches between the store and the viewer may do, as in HTTP."""
    storage_class: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")] | None = (
        None
    )
    server_side_encryption: Literal["AES256", "aws:kms"] | None = None
    kms_key_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9:/_-]{1,512}$")] | None = None
    """Default: the key that the account has for S3."""
    metadata: ObjectMetadata | None = None
    """Of the object, each as an `x-amz-meta-` header."""

    @model_validator(mode="after")
    def _a_key_is_for_kms(self) -> Self:
        if self.kms_key_id is not None and self.server_side_encryption != "aws:kms":
            raise ValueError("kmsKeyId needs serverSideEncryption aws:kms")
        return self


class HttpDestination(Model):
    kind: Literal["http", "https"]
    url: HttpUrl
    method: Literal["POST", "PUT"] = "PUT"
    headers: Headers | None = None


class FtpDestination(FtpLocation):
    pass


class FileDestination(FileLocation):
    pass


Destination = Annotated[
    S3Destination | HttpDestination | FtpDestination | FileDestination, Field(discriminator="kind")
]


class Clip(Model):
    """The part of the source to encode, in seconds of its timeline."""

    start: Annotated[float, Field(ge=0, le=1_000_000), NOT_BOOLEAN] = 0.0
    duration: Annotated[float, Field(gt=0, le=1_000_000), NOT_BOOLEAN] | None = None


class VideoSettings(Model):
    """How a picture is encoded. Whatever is left out follows the source or a documented default."""

    video_codec: Codec | None = None
    """An ffmpeg encoder or a common name: h264, hevc, vp9, av1, copy, none."""
    video_bitrate: Bitrate | None = None
    max_bitrate: Bitrate | None = None
    crf: Annotated[float, Field(ge=0, le=63), NOT_BOOLEAN] | None = None
    """Constant quality; lower is better. Not together with videoBitrate."""
    width: Dimension | None = None
    height: Dimension | None = None
    frame_rate: Annotated[float, Field(gt=0, le=240), NOT_BOOLEAN] | None = None
    profile: Codec | None = None
    preset: Codec | None = None
    """The encoder's own speed preset, such as veryfast."""
    gop_seconds: Annotated[float, Field(gt=0, le=60), NOT_BOOLEAN] | None = None
    """Seconds between keyframes."""
    fit: Literal["contain", "cover", "stretch", "none"] | None = None
    """What happens when width and height have another shape than the source. Default: contain."""
    upscale: bool | None = None
    """Allow an output larger than the source. Default: no."""

    @model_validator(mode="after")
    def _one_rate_control(self) -> Self:
        if self.crf is not None and self.video_bitrate is not None:
            raise ValueError("give crf or videoBitrate, not both; cap a crf with maxBitrate")
        return self


class AudioSettings(Model):
    audio_codec: Codec | None = None
    """An ffmpeg encoder or a common name: aac, opus, mp3, flac, copy, none."""
    audio_bitrate: Bitrate | None = None
    audio_channels: Annotated[int, Field(ge=1, le=8), NOT_BOOLEAN] | None = None
    audio_sample_rate: Annotated[int, Field(ge=8_000, le=192_000), NOT_BOOLEAN] | None = None
    loudness: Annotated[float, Field(ge=-40, le=-5), NOT_BOOLEAN] | None = None
    """Integrated loudness in LUFS (EBU R128), such as -23 or -16. Default: as it is."""
    language: Language | None = None
    """Of the sound, where the source has several. Default: the one that its author marked."""


class Rendition(VideoSettings):
    """One rung of an HLS or DASH ladder."""


class Packaging(Model):
    """How an hls or dash output is cut, and which manifests describe its one set of segments."""

    manifests: Annotated[list[Literal["hls", "dash"]], Field(min_length=1, max_length=2)] | None = (
        None
    )
    """Default: the container's own. `["hls", "dash"]` writes both over the same segments."""
    segment_seconds: Annotated[float, Field(ge=1, le=60), NOT_BOOLEAN] | None = None
    """A whole number of times gopSeconds. Default: about 6."""


class Sprite(Model):
    """Put the pictures on sheets, with a WebVTT file that says where on them each one is."""

    columns: Annotated[int, Field(ge=1, le=50), NOT_BOOLEAN] | None = None
    """Default: 10."""
    rows: Annotated[int, Field(ge=1, le=50), NOT_BOOLEAN] | None = None
    """Of one sheet; more pictures begin another. Default: 10."""


class Thumbnails(Model):
    """Which pictures a jpg or png output takes: exactly one of the first three."""

    count: Annotated[int, Field(ge=1, le=1000), NOT_BOOLEAN] | None = None
    interval_seconds: Annotated[float, Field(gt=0, le=86_400), NOT_BOOLEAN] | None = None
    at: (
        Annotated[
            list[Annotated[float, Field(ge=0), NOT_BOOLEAN]], Field(min_length=1, max_length=1000)
        ]
        | None
    ) = None
    sprite: Sprite | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [self.count, self.interval_seconds, self.at]
        if sum(value is not None for value in given) != 1:
            raise ValueError("give exactly one of count, intervalSeconds and at")
        return self


class Position(StrEnum):
    """Where on a picture something lies."""

    TOP_LEFT = "top-left"
    TOP = "top"
    TOP_RIGHT = "top-right"
    LEFT = "left"
    CENTER = "center"
    RIGHT = "right"
    BOTTOM_LEFT = "bottom-left"
    BOTTOM = "bottom"
    BOTTOM_RIGHT = "bottom-right"


Percent = Annotated[float, Field(ge=1, le=100), NOT_BOOLEAN]


class Watermark(Model):
    """An image that is laid over the picture. It keeps its shape, and grows or shrinks with it."""

    source: Source
    """Where the image is: PNG, JPEG or WebP, of at most 16 MiB and 4096 pixels a side."""
    position: Position | None = None
    """Default: bottom-right."""
    opacity: Annotated[float, Field(gt=0, le=1), NOT_BOOLEAN] | None = None
    """From 0, which nobody sees, to 1. The image's own transparency stays. Default: 1."""
    width_percent: Percent | None = None
    """Of the picture's width, at most. Default: 20, or what heightPercent leaves."""
    height_percent: Percent | None = None
    """Of the picture's height, at most. Default: 20, or what widthPercent leaves."""
    margin_percent: Annotated[float, Field(ge=0, le=25), NOT_BOOLEAN] | None = None
    """Distance to the edges, of the picture's shorter side. Default: 4."""


class OutputSpec(VideoSettings, AudioSettings):
    """One file, or one set of files for hls, dash and thumbnails."""

    based_on: PresetName | None = None
    """A named preset, which fills in what the output leaves out."""
    container: Container = Container.MP4
    clip: Clip | None = None
    renditions: Annotated[list[Rendition], Field(min_length=1, max_length=12)] | None = None
    """What one leaves out it takes from the output's own fields."""
    packaging: Packaging | None = None
    thumbnails: Thumbnails | None = None
    audio_tracks: (
        Annotated[list[AudioTrack], Field(min_length=1, max_length=MAX_AUDIO_TRACKS)] | None
    ) = None
    """Several sounds in one output, in this order: languages, numbers from 1, or all."""
    subtitles: (
        Annotated[list[AudioTrack], Field(min_length=1, max_length=MAX_AUDIO_TRACKS)] | None
    ) = None
    """
    Which of the source's the output keeps, as in audioTracks. Default: none.

    A vtt is one of them: a language or a number; by default the first that is text.
    """
    rotate: Literal[90, 180, 270] | None = None
    """Degrees clockwise, after what the source itself says of its rotation."""
    watermark: Watermark | None = None
    metadata: Annotated[dict[FileTag, FileTagValue], Field(max_length=16)] | None = None
    """Written into the file. The source's own is never: it may say where a film was taken."""
    destination: Destination

    @model_validator(mode="before")
    @classmethod
    def _take_from_preset(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        written = {to_camel(name) if "_" in name else name: given[name] for name in given}
        preset: Any = written.get("basedOn")
        # An unknown one is refused by its field, with the names that there are.
        return fill_in(preset, written) if preset in get_args(PresetName) else given

    @model_validator(mode="after")
    def _shapes_fit_container(self) -> Self:
        if self.renditions is not None and self.container not in (Container.HLS, Container.DASH):
            raise ValueError("renditions are for hls and dash")
        if self.packaging is not None and self.container not in (Container.HLS, Container.DASH):
            raise ValueError("packaging is for hls and dash")
        if self.thumbnails is not None and self.container not in (Container.JPG, Container.PNG):
            raise ValueError("thumbnails are for jpg and png")
        return self


MetadataValue = Annotated[str, StringConstraints(max_length=512)]
MetadataKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


# MySQL compares `a` and `a ` as the same name, SQLite does not: nobody means both.
ExternalId = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=128,
        pattern=r"^[^\x09-\x0d\x20]([\s\S]*[^\x09-\x0d\x20])?$",
    ),
]


class JobSpec(Model):
    """A job as it is stored. Without outputs it is a probe of its source."""

    source: Source
    outputs: Annotated[list[OutputSpec], Field(max_length=MAX_OUTPUTS)]
    notification_url: HttpUrl | None = None
    pool: Label = DEFAULT_POOL
    priority: Priority = Priority.NORMAL
    start_at: Moment | None = None
    """Not before this moment, at most a year ahead. A moment that is past means now."""
    external_id: ExternalId | None = None
    """The caller's own name for the job, unique per owner. No white space at its ends."""
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=MAX_METADATA)] | None = (
        None
    )
    """Kept with the job and sent with every webhook."""


class JobRequest(JobSpec):
    """The body of `POST /jobs`."""

    outputs: Annotated[list[OutputSpec], Field(min_length=1, max_length=MAX_OUTPUTS)]

    @model_validator(mode="after")
    def _inline_has_data(self) -> Self:
        if isinstance(self.source, InlineSource):
            if self.source.data is None:
                raise ValueError("an inline source needs data")
            if self.source.size_bytes is not None:
                raise ValueError("sizeBytes is set by the service")
        return self
