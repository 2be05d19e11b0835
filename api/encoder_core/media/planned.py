"""What a plan says: the decided outputs of a job, as values that a command is built from."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from encoder_core.failures import Warned
from encoder_core.media.codecs import AudioEncoder, VideoEncoder
from encoder_core.media.containers import ContainerKind
from encoder_core.media.naming import TrackName
from encoder_core.specs import Container, Position

FFMPEG_MANIFEST: Final = "ffmpeg.mpd"  # written by its muxer in any case, and never delivered


@dataclass(frozen=True, slots=True, kw_only=True)
class WatermarkPlan:
    """Where an image lies on a picture. Pixels of the picture as it will be."""

    box: tuple[int, int]
    """Width and height that it is scaled to fit into."""
    margin: int
    position: Position
    opacity: float
    matrix: str
    """What its colours are made with, so that they are those of the picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoPlan:
    stream: int
    encoder: VideoEncoder | None
    """None: the stream is copied."""
    family: str
    width: int
    height: int
    """As stored in the file. A copied stream that is turned keeps its stored size."""
    limited: bool = False
    """Whether it is smaller than asked, because the source is."""
    source_size: tuple[int, int] = (0, 0)
    """As it is shown. Nothing of a copied stream."""
    scale: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    """Cut out of the middle, after scaling."""
    frame_rate: Fraction | None = None
    """A constant rate to make. None: the frames of the source as they come."""
    fps: Fraction | None = None
    """What the rate will be, for the keyframe distance and the check."""
    rotate: int = 0
    """Degrees clockwise to turn it by, before anything else."""
    deinterlace: bool = False
    tone_map: bool = False
    from_rgb: bool = False
    """Colours without a matrix: they are made BT.709, and tagged so."""
    presumed_bt709: bool = False
    """The source does not say what its colours are, and players take them for BT.709."""
    watermark: WatermarkPlan | None = None
    bitrate: int | None = None
    max_bitrate: int | None = None
    crf: float | None = None
    preset: str | None = None
    profile: str | None = None
    gop_frames: int | None = None
    duration_s: float | None = None
    frames: int | None = None
    """How many there will be, when that can be known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioPlan:
    stream: int
    encoder: AudioEncoder | None
    """None: the stream is copied."""
    family: str
    channels: int
    sample_rate: int
    language: str | None = None
    """As the source's tag has it, which is foreign text."""
    loudness: float | None = None
    """LUFS that it is to have, once it was measured."""
    gain_db: float = 0.0
    bitrate: int | None = None
    duration_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubtitlePlan:
    stream: int
    encoder: str
    """`copy`, or what ffmpeg converts it with."""
    family: str
    language: str | None = None
    forced: bool = False
    cues: int | None = None
    """How many there will be, when that can be known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenditionPlan:
    """One rung of a ladder."""

    name: str
    """Unique in its package, such as `720p`; a part of its files' names."""
    video: VideoPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagePlan:
    """An hls or dash output: segments of every rendition and sound, and what lists them."""

    manifests: tuple[str, ...]
    """`hls`, `dash` or both; the container's own first."""
    renditions: tuple[RenditionPlan, ...]
    segment_s: Fraction
    """A whole number of keyframe distances, the same for all renditions."""
    sounds: tuple[TrackName, ...] = ()
    """Of the output's sounds, in their order."""
    subtitles: tuple[TrackName, ...] = ()
    """Of its subtitles, each a file of its own that both manifests name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpritePlan:
    """Sheets of pictures, in rows from the left."""

    columns: int
    rows: int
    tile: tuple[int, int]
    """Width and height of one picture."""
    sheets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoicePlan:
    """From a picture's instant on, some frames of which the most telling one is taken."""

    frames: int
    every: int
    """How many frames apart they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPlan:
    """One output, decided."""

    index: int
    container: Container
    kind: ContainerKind
    video: VideoPlan | None
    """Of a package, its largest rendition."""
    audio: AudioPlan | None
    other_audio: tuple[AudioPlan, ...] = ()
    """More sounds beside the first, which players take by default."""
    subtitles: tuple[SubtitlePlan, ...] = ()
    package: PackagePlan | None = None
    start_s: float = 0.0
    length_s: float | None = None
    """Cut to so much. None: to the end."""
    duration_s: float | None = None
    """How long it will be, when that can be known."""
    shown_s: float | None = None
    """How long the part of the source is that it shows, when that can be known."""
    pictures: tuple[float, ...] = ()
    """Instants of which a picture is taken, each within the clip."""
    sprite: SpritePlan | None = None
    choice: ChoicePlan | None = None
    stem: str = "output"
    """What the names of the files of a set or package begin with."""
    is_set: bool = False
    """Whether it is a set of numbered pictures rather than one file."""
    metadata: tuple[tuple[str, str], ...] = ()
    """What is written into the file, by name."""
    warnings: tuple[Warned, ...] = ()
    followed: bool = False
    """
    Whether its file is sent while it grows: the encoder leaves the index at its end, and the worker
    moves it to the front.
    """

    @property
    def moves_index(self) -> bool:
        return self.followed and self.kind.index_in_front

    @property
    def tile_list(self) -> str:
        """Where the encoder lists the pictures that went on a sheet."""
        return f"{self.index}-tiles.txt"

    @property
    def has_watermark(self) -> bool:
        """Of a package, each of its renditions has it, and so has the largest."""
        return self.video is not None and self.video.watermark is not None

    @property
    def sounds(self) -> tuple[AudioPlan, ...]:
        return () if self.audio is None else (self.audio, *self.other_audio)

    def text_name(self, number: int) -> str:
        """Where the encoder puts the subtitles of a package, counted from 0."""
        return f"{self.index}/text-{number}.vtt"

    @property
    def file_name(self) -> str:
        """How the encoder names it in the scratch folder; a pattern for a set of pictures."""
        if self.package is not None:
            return f"{self.index}/{FFMPEG_MANIFEST}"
        number = "-%05d" if self.is_set else ""
        return f"{self.index}{number}.{self.kind.extension}"
