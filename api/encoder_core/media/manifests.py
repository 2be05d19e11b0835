"""
Write the manifests of a package: HLS playlists and a DASH MPD over the same segments. Pure.

ffmpeg's own are not delivered: they give the average where players need the peak, leave out the
frame rate, date recorded films to now, and cannot be compared with what the segments really hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from math import ceil
from typing import Final
from urllib.parse import quote

from encoder_core.media.cmaf import Segment, Track
from encoder_core.media.naming import TrackName

HLS_VERSION: Final = 7  # the first with fragmented MP4
AUDIO_GROUP: Final = "audio"
SUBTITLES_GROUP: Final = "subtitles"
# Of a cue's clock and that of the segments, whose pictures begin at 0 (RFC 8216, 3.5).
TIMESTAMP_MAP: Final = "X-TIMESTAMP-MAP=MPEGTS:0,LOCAL:00:00:00.000"
MIN_BUFFER_S: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One track of a package: a rendition, or a sound."""

    name: str
    """In file names: `720p`, `audio`."""
    track: Track
    segments: tuple[Segment, ...]
    prefix: str
    """What the names of its files begin with."""
    frame_rate: Fraction | None = None
    channels: int = 0
    sound: TrackName | None = None
    """None: it is a rendition."""

    @property
    def playlist(self) -> str:
        return f"{self.prefix}.m3u8"

    @property
    def init(self) -> str:
        return f"{self.prefix}-init.mp4"

    def file(self, number: int) -> str:
        """The name of a segment, counted from 1."""
        return f"{self.prefix}-{number:05d}.m4s"

    @property
    def duration_s(self) -> Fraction:
        return sum((self.seconds(segment) for segment in self.segments), Fraction(0))

    def seconds(self, segment: Segment) -> Fraction:
        return Fraction(segment.duration, self.track.timescale)

    @property
    def average_rate(self) -> int:
        """Bits per second over all of it."""
        return ceil(sum(s.size_bytes for s in self.segments) * 8 / self.duration_s)

    @property
    def peak_rate(self) -> int:
        """Of its heaviest segment. A short last one is not a fair measure of anything."""
        longest = max(segment.duration for segment in self.segments)
        return ceil(
            max(
                segment.size_bytes * 8 / self.seconds(segment)
                for segment in self.segments
                if segment.duration * 2 >= longest
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """
    Subtitles of a package: one WebVTT file with all of them.

    It is the only form that both manifests may name: DASH takes WebVTT in pieces only inside of
    MP4, and HLS frees subtitles of a finished film from the target duration (RFC 8216, 6.2.4).
    """

    words: TrackName
    prefix: str
    size_bytes: int
    duration_s: Fraction
    """Of the package: what it is shown with."""

    @property
    def name(self) -> str:
        return self.words.name

    @property
    def playlist(self) -> str:
        return f"{self.prefix}.m3u8"

    @property
    def file(self) -> str:
        return f"{self.prefix}.vtt"

    @property
    def rate(self) -> int:
        return ceil(self.size_bytes * 8 / self.duration_s)


def build_master(streams: Sequence[Stream], texts: Sequence[Text] = ()) -> str:
    """
    The multivariant playlist: each rendition with the sounds, or the first sound with the others.

    Every sound has its own playlist in the group, also the one that stands for all where there is
    no picture: Shaka Player passes over those without.
    """
    videos = [stream for stream in streams if stream.track.is_video]
    sounds = [stream for stream in streams if not stream.track.is_video]
    group = sounds if videos or len(sounds) > 1 else []
    lines = ["#EXTM3U", f"#EXT-X-VERSION:{HLS_VERSION}", "#EXT-X-INDEPENDENT-SEGMENTS"]
    lines += [_media_line(sound) for sound in group]
    lines += [_subtitles_line(text) for text in texts]
    most_text = max((text.rate for text in texts), default=0)
    for stream in videos or sounds[:1]:
        own_peak, own_average = (stream.peak_rate, stream.average_rate) if videos else (0, 0)
        attributes = {
            "BANDWIDTH": str(own_peak + most_text + max((s.peak_rate for s in sounds), default=0)),
            "AVERAGE-BANDWIDTH": str(
                own_average + most_text + max((s.average_rate for s in sounds), default=0)
            ),
            "CODECS": _quoted(",".join(_codecs([stream, *sounds]))),
        }
        if stream.track.is_video:
            attributes["RESOLUTION"] = f"{stream.track.width}x{stream.track.height}"
        if stream.frame_rate is not None:
            attributes["FRAME-RATE"] = f"{float(stream.frame_rate):.3f}"
        if group:
            attributes["AUDIO"] = _quoted(AUDIO_GROUP)
        if texts:
            attributes["SUBTITLES"] = _quoted(SUBTITLES_GROUP)
        lines += [f"#EXT-X-STREAM-INF:{_join(attributes)}", quote(stream.playlist)]
    return "\n".join(lines) + "\n"


def _media_line(stream: Stream) -> str:
    sound = stream.sound
    assert sound is not None
    attributes = {"TYPE": "AUDIO", "GROUP-ID": _quoted(AUDIO_GROUP), **_choice(sound)}
    attributes["DEFAULT"] = "NO" if sound.number else "YES"
    if stream.channels:
        attributes["CHANNELS"] = _quoted(str(stream.channels))
    attributes["URI"] = _quoted(quote(stream.playlist))
    return f"#EXT-X-MEDIA:{_join(attributes)}"


def _subtitles_line(text: Text) -> str:
    """Never the default: who wants to read has said so to the player."""
    attributes = {"TYPE": "SUBTITLES", "GROUP-ID": _quoted(SUBTITLES_GROUP), **_choice(text.words)}
    attributes["DEFAULT"] = "NO"
    if text.words.forced:
        attributes["FORCED"] = "YES"
    attributes["URI"] = _quoted(quote(text.playlist))
    return f"#EXT-X-MEDIA:{_join(attributes)}"


def _choice(track: TrackName) -> dict[str, str]:
    attributes = {"NAME": _quoted(track.label)}
    if track.language is not None:
        attributes["LANGUAGE"] = _quoted(track.language)
    # A player that chooses by language could not tell a second one of the same from the first.
    attributes["AUTOSELECT"] = "NO" if track.repeats else "YES"
    return attributes


def _codecs(streams: Sequence[Stream]) -> list[str]:
    return list(dict.fromkeys(stream.track.codecs for stream in streams))


def _quoted(text: str) -> str:
    return f'"{text}"'


def _join(attributes: dict[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in attributes.items())


def target_seconds(streams: Sequence[Stream]) -> int:
    """
    What all media playlists give as their target, since RFC 8216 (6.2.4) wants one for all.

    No segment, rounded to a whole second, may be longer.
    """
    lengths = [stream.seconds(segment) for stream in streams for segment in stream.segments]
    return max(1, *(int(length + Fraction(1, 2)) for length in lengths))


def build_playlist(stream: Stream, target_s: int) -> str:
    """The media playlist of one stream, complete."""
    lengths = [stream.seconds(segment) for segment in stream.segments]
    lines = [
        "#EXTM3U",
        f"#EXT-X-VERSION:{HLS_VERSION}",
        f"#EXT-X-TARGETDURATION:{target_s}",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        f'#EXT-X-MAP:URI="{quote(stream.init)}"',
    ]
    for number, length in enumerate(lengths, start=1):
        lines += [f"#EXTINF:{float(length):.6f},", quote(stream.file(number))]
    return "\n".join([*lines, "#EXT-X-ENDLIST"]) + "\n"


def build_text_playlist(text: Text) -> str:
    """One segment, which is the whole file, as long as the package."""
    return "\n".join(
        [
            "#EXTM3U",
            f"#EXT-X-VERSION:{HLS_VERSION}",
            f"#EXT-X-TARGETDURATION:{max(1, int(text.duration_s + Fraction(1, 2)))}",
            "#EXT-X-PLAYLIST-TYPE:VOD",
            f"#EXTINF:{float(text.duration_s):.6f},",
            quote(text.file),
            "#EXT-X-ENDLIST\n",
        ]
    )


def build_mpd(streams: Sequence[Stream], texts: Sequence[Text] = ()) -> str:
    """The MPD: an adaptation set for each codec of the renditions, each sound and each text."""
    duration = max(stream.duration_s for stream in streams)
    longest = max(stream.seconds(segment) for stream in streams for segment in stream.segments)
    root = {
        "xmlns": "urn:mpeg:dash:schema:mpd:2011",
        "profiles": "urn:mpeg:dash:profile:isoff-live:2011,urn:mpeg:dash:profile:cmaf:2019",
        "type": "static",
        "mediaPresentationDuration": _duration(duration),
        "maxSegmentDuration": _duration(longest),
        "minBufferTime": _duration(Fraction(MIN_BUFFER_S)),
    }
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f"<MPD{_xml(root)}>", '  <Period id="0">']
    sets = _adaptation_sets(streams)
    for number, group in enumerate(sets):
        lines += _adaptation_set(number, group)
    for number, text in enumerate(texts, start=len(sets)):
        lines += _text_set(number, text)
    return "\n".join([*lines, "  </Period>", "</MPD>"]) + "\n"


def _adaptation_sets(streams: Sequence[Stream]) -> list[list[Stream]]:
    """A player changes only between renditions of one codec; sounds are choices of their own."""
    videos = sorted(
        (s for s in streams if s.track.is_video), key=lambda stream: stream.track.family
    )
    sets = [list(group) for _, group in groupby(videos, key=lambda stream: stream.track.family)]
    return [*sets, *([stream] for stream in streams if not stream.track.is_video)]


def _adaptation_set(number: int, streams: Sequence[Stream]) -> list[str]:
    first = streams[0]
    kind = "video" if first.track.is_video else "audio"
    attributes = {
        "id": str(number),
        "contentType": kind,
        "mimeType": f"{kind}/mp4",
        "segmentAlignment": "true",
        "startWithSAP": "1",
    }
    if first.sound is not None and first.sound.language is not None:
        attributes["lang"] = first.sound.language
    if first.sound is not None and first.sound.number == 0:
        attributes["selectionPriority"] = "2"  # dash.js would take the one of most bits
    if kind == "video":
        attributes["maxWidth"] = str(max(stream.track.width for stream in streams))
        attributes["maxHeight"] = str(max(stream.track.height for stream in streams))
    lines = [f"    <AdaptationSet{_xml(attributes)}>"]
    if first.sound is not None:
        lines += _described(first.sound, _role(first.sound))
    for stream in streams:
        lines += _representation(stream)
    return [*lines, "    </AdaptationSet>"]


def _text_set(number: int, text: Text) -> list[str]:
    attributes = {"id": str(number), "contentType": "text", "mimeType": "text/vtt"}
    if text.words.language is not None:
        attributes["lang"] = text.words.language
    representation = {"id": text.name, "bandwidth": str(text.rate)}
    return [
        f"    <AdaptationSet{_xml(attributes)}>",
        *_described(text.words, "forced-subtitle" if text.words.forced else "subtitle"),
        f"      <Representation{_xml(representation)}>",
        f"        <BaseURL>{quote(text.file)}</BaseURL>",
        "      </Representation>",
        "    </AdaptationSet>",
    ]


def _role(sound: TrackName) -> str:
    if sound.number == 0:
        return "main"
    # Another language is another voice; the same one again is a commentary or the like.
    return "alternate" if sound.repeats or sound.language is None else "dub"


def _described(track: TrackName, role: str) -> list[str]:
    lines = []
    if track.repeats:  # of the others players say the language, in the viewer's own
        lines.append(f"      <Label>{track.label}</Label>")
    scheme = _xml({"schemeIdUri": "urn:mpeg:dash:role:2011", "value": role})
    return [*lines, f"      <Role{scheme}/>"]


def _representation(stream: Stream) -> list[str]:
    track = stream.track
    attributes = {
        "id": stream.name,
        "codecs": track.codecs,
        "bandwidth": str(stream.peak_rate),
    }
    if track.is_video:
        attributes |= {"width": str(track.width), "height": str(track.height), "sar": "1:1"}
    if stream.frame_rate is not None:
        attributes["frameRate"] = str(stream.frame_rate)
    if not track.is_video:
        attributes["audioSamplingRate"] = str(track.sample_rate)
    template = {
        "timescale": str(track.timescale),
        "initialization": quote(stream.init),
        "media": f"{quote(stream.prefix)}-$Number%05d$.m4s",
        "startNumber": "1",
    }
    lines = [f"      <Representation{_xml(attributes)}>"]
    if not track.is_video and stream.channels:
        scheme = "urn:mpeg:dash:23003:3:audio_channel_configuration:2011"
        channels = _xml({"schemeIdUri": scheme, "value": str(stream.channels)})
        lines.append(f"        <AudioChannelConfiguration{channels}/>")
    lines.append(f"        <SegmentTemplate{_xml(template)}>")
    lines.append("          <SegmentTimeline>")
    lines += [f"            <S{_xml(entry)}/>" for entry in _timeline(stream.segments)]
    return [
        *lines,
        "          </SegmentTimeline>",
        "        </SegmentTemplate>",
        "      </Representation>",
    ]


def _timeline(segments: Sequence[Segment]) -> list[dict[str, str]]:
    """Runs of equal durations; the first says when it starts."""
    entries: list[dict[str, str]] = []
    for duration, run in groupby(segments, key=lambda segment: segment.duration):
        entry = {"t": str(segments[0].start)} if not entries else {}
        repeats = len(list(run)) - 1
        entries.append({**entry, "d": str(duration), **({"r": str(repeats)} if repeats else {})})
    return entries


def _duration(length: Fraction) -> str:
    return f"PT{float(length):.3f}S"


def _xml(attributes: dict[str, str]) -> str:
    from xml.sax.saxutils import quoteattr  # brings an HTTP client along; few jobs write an MPD

    return "".join(f" {name}={quoteattr(value)}" for name, value in attributes.items())
