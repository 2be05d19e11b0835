"""
Turn plans into argument lists: one ffmpeg for all outputs of a job, decoding the source once.

Nothing of the request reaches an argument but numbers, names out of our own tables and the words of
its metadata, each behind its `name=`. Every file is one that we named, behind `file:`, so that no
name can be taken for an option or a protocol.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Final

from encoder_core.media.bounds import MAX_PIXELS
from encoder_core.media.codecs import VideoEncoder
from encoder_core.media.containers import SOURCE_DEMUXERS, Kind
from encoder_core.media.graph import Marks, build_graph, cut_filter, find_branches
from encoder_core.media.loudness import Meter
from encoder_core.media.planned import AudioPlan, OutputPlan, PackagePlan, VideoPlan
from encoder_core.media.watermarks import IMAGE_DEMUXERS, MAX_IMAGE_SIDE
from encoder_core.specs import LANGUAGE_PATTERN, Container

MUXING_QUEUE: Final = 4096  # packets that wait for a late stream; the default of 128 is too few
PROGRESS_PERIOD_S: Final = 0.5  # as ffmpeg's own default; below 1 % of its time even at 0.05

GATEWAY: Final = "http://127.0.0.1:"  # what a path never begins with

_READ_SAFELY: Final = (
    *("-format_whitelist", ",".join(SOURCE_DEMUXERS)),
    *("-max_pixels", str(MAX_PIXELS)),
)

_READ_IMAGES: Final = (
    *("-protocol_whitelist", "file,pipe", "-format_whitelist", ",".join(IMAGE_DEMUXERS)),
    *("-max_pixels", str(MAX_IMAGE_SIDE**2)),
)
_READ_ONE_IMAGE: Final = (*_READ_IMAGES, "-threads", "1")  # of a single frame more are none faster


def _read_safely(source: str) -> tuple[str, ...]:
    """Options before an input: no list of files or addresses passes for media."""
    protocols = "http,tcp" if source.startswith(GATEWAY) else "file,pipe"
    return ("-protocol_whitelist", protocols, *_READ_SAFELY)


def _name(source: str) -> str:
    """An absolute path, or the address of the worker's own gateway."""
    return source if source.startswith(GATEWAY) else f"file:{source}"


def build_probe_command(source: str, *, count_packets: bool = False) -> list[str]:
    """Arguments of ffprobe for a file's format and streams, as JSON."""
    return [
        *("-hide_banner", "-loglevel", "error", *_read_safely(source)),
        *(["-count_packets"] if count_packets else []),
        *("-show_format", "-show_streams", "-of", "json", _name(source)),
    ]


def build_measure_command(source: str) -> list[str]:
    """Arguments of ffprobe that list every packet's time, for `measure_packets`."""
    return [
        *("-hide_banner", "-loglevel", "error", *_read_safely(source)),
        *("-show_entries", "packet=stream_index,pts_time,dts_time,duration_time", "-of", "csv=p=0"),
        _name(source),
    ]


def build_loudness_command(meters: Sequence[Meter], *, source: str, threads: int) -> list[str]:
    """Arguments of ffmpeg that measure sounds as they will be; `read_loudness` reads its log."""
    chains = [
        ",".join(
            [
                f"[0:{meter.stream}]a{cut_filter(meter.start_s, meter.length_s)}",
                *_mix(meter.channels),
                f"ebur128@m{number}=peak=true:framelog=verbose[m{number}]",
            ]
        )
        for number, meter in enumerate(meters)
    ]
    return [
        *("-hide_banner", "-nostdin", "-loglevel", "info", "-nostats"),
        *("-progress", "pipe:1", "-stats_period", f"{PROGRESS_PERIOD_S:g}"),
        *("-filter_complex_threads", str(threads), *_read_safely(source)),
        *("-threads", str(threads), "-vn", "-sn", "-dn", "-i", _name(source)),
        *("-filter_complex", ";".join(chains)),
        *(word for number in range(len(meters)) for word in ("-map", f"[m{number}]")),
        *("-f", "null", "-"),
    ]


_LAYOUTS: Final = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def _mix(channels: int) -> list[str]:
    layout = _LAYOUTS.get(channels)
    return [f"aformat=channel_layouts={layout}"] if layout else []


def build_image_probe_command(image: str) -> list[str]:
    """Arguments of ffprobe for the image of a watermark, decoded, as JSON."""
    return [
        *("-hide_banner", "-loglevel", "error", *_READ_IMAGES),
        *("-count_frames", "-show_streams", "-of", "json", _name(image)),
    ]


def build_encode_command(
    plans: Sequence[OutputPlan],
    *,
    source: str,
    images: Mapping[int, str] | None = None,
    folder: str,
    threads: int,
) -> list[str]:
    """
    Arguments of ffmpeg for all plans together; files go to `folder` under each plan's `file_name`.

    `images` has the image of each output with a watermark, by its index; outputs may share one.

    `threads` bounds the decoder, each filter graph and each encoder: ffmpeg sees the machine's
    cores, not the limit of its container.
    """
    clips = {(plan.start_s, plan.length_s) for plan in plans}
    # A clip that all outputs share is sought in the source; others are cut out of the one decode.
    shared = clips.pop() if len(clips) == 1 and not any(_picks(plan) for plan in plans) else None
    marks = Marks(plans, images or {})
    graph = build_graph(plans, marks, cut=shared is None)
    return [
        *("-hide_banner", "-nostdin", "-y", "-loglevel", "warning", "-nostats"),
        *("-progress", "pipe:1", "-stats_period", f"{PROGRESS_PERIOD_S:g}"),
        *("-filter_threads", str(threads), "-filter_complex_threads", str(threads)),
        *_read_safely(source),
        *("-threads", str(threads)),
        *(_clip_arguments(*shared) if shared else []),
        *("-i", _name(source)),
        *(word for image in marks.files for word in (*_READ_ONE_IMAGE, "-i", _name(image))),
        *(["-filter_complex", graph] if graph else []),
        *(
            argument
            for plan in plans
            for argument in _output_arguments(plan, folder, threads, cut=shared is None)
        ),
    ]


def _picks(plan: OutputPlan) -> bool:
    """Whether it selects instants by the source's own clock, which a sought source has lost."""
    return bool(plan.pictures)


def _clip_arguments(start: float, length: float | None) -> list[str]:
    return [
        *(["-ss", f"{start:g}"] if start else []),
        *(["-t", f"{length:g}"] if length is not None else []),
    ]


# --- Outputs ---------------------------------------------------------------------------------


def _output_arguments(plan: OutputPlan, folder: str, threads: int, *, cut: bool) -> list[str]:
    arguments: list[str] = []
    if plan.package is not None:
        return _package_arguments(plan, plan.package, folder, threads, cut=cut)
    if plan.video is not None:
        label = f"[o{plan.index}]" if plan.video.encoder else f"0:{plan.video.stream}"
        arguments += ["-map", label]
    for sound in plan.sounds:
        arguments += ["-map", f"0:{sound.stream}"]
    if plan.video is not None:
        arguments += _video_arguments(plan, plan.video, threads, cut=cut)
    for number, sound in enumerate(plan.sounds):
        arguments += _audio_arguments(plan, sound, f"a:{number}", cut=cut)
    if len(plan.sounds) > 1:
        for number in range(len(plan.sounds)):
            arguments += [f"-disposition:a:{number}", "0" if number else "default"]
    for number, words in enumerate(plan.subtitles):
        arguments += ["-map", f"0:{words.stream}", f"-c:s:{number}", words.encoder]
    streams = [plan.video, *plan.sounds]
    if cut and any(stream is not None and stream.encoder is None for stream in streams):
        arguments += _clip_arguments(plan.start_s, plan.length_s)
    path = PurePath(folder) / plan.file_name
    return [
        *arguments,
        *("-max_muxing_queue_size", str(MUXING_QUEUE)),
        *([] if plan.moves_index else plan.kind.options),
        *_metadata_arguments(plan),
        *_set_arguments(plan),
        *("-f", plan.kind.muxer, f"file:{path}"),
    ]


def _package_arguments(
    plan: OutputPlan, package: PackagePlan, folder: str, threads: int, *, cut: bool
) -> list[str]:
    """
    Segments of all renditions and sounds, cut by one muxer, and a file for each of the subtitles.

    Stream N becomes N-init.mp4 and N-00001.m4s onwards, renditions first, then sounds. Each cut is
    the first keyframe at or after a multiple of the segment's length; its microseconds are rounded
    down, so that no keyframe comes too early for its cut.
    """
    arguments: list[str] = []
    for _, _, name in find_branches(plan):
        arguments += ["-map", f"[o{name}]"]
    for sound in plan.sounds:
        arguments += ["-map", f"0:{sound.stream}"]
    for number, rendition in enumerate(package.renditions):
        options = _video_arguments(plan, rendition.video, threads, cut=cut)
        arguments += _for_stream(options, f"v:{number}")
    for number, sound in enumerate(plan.sounds):
        arguments += _audio_arguments(plan, sound, f"a:{number}", cut=cut)
    if cut and any(sound.encoder is None for sound in plan.sounds):
        arguments += _clip_arguments(plan.start_s, plan.length_s)
    microseconds = int(package.segment_s * 1_000_000)
    return [
        *arguments,
        *("-max_muxing_queue_size", str(MUXING_QUEUE)),
        *("-f", "dash", "-dash_segment_type", "mp4"),
        # Without a timeline the muxer cuts at multiples of the length; with one it would measure
        # from cut to cut, and the sound would drift away from the pictures.
        *("-use_template", "1", "-use_timeline", "0", "-seg_duration", f"{microseconds}us"),
        *("-init_seg_name", "$RepresentationID$-init.mp4"),
        *("-media_seg_name", "$RepresentationID$-$Number%05d$.m4s"),
        # So that pictures begin at 0 without an edit list, which not every player obeys.
        *("-format_options", "movflags=+negative_cts_offsets"),
        f"file:{PurePath(folder) / plan.file_name}",
        *(
            argument
            for number, words in enumerate(plan.subtitles)
            for argument in (
                *("-map", f"0:{words.stream}", "-c:s", words.encoder, "-f", "webvtt"),
                f"file:{PurePath(folder) / plan.text_name(number)}",
            )
        ),
    ]


def _for_stream(options: Sequence[str], stream: str) -> list[str]:
    """Options, which come in pairs of a name and a value, for one stream alone."""
    names, values = options[::2], options[1::2]
    return [
        argument
        for name, value in zip(names, values, strict=True)
        for argument in (f"{name.removesuffix(':v')}:{stream}", value)
    ]


def _metadata_arguments(plan: OutputPlan) -> list[str]:
    """
    The request's own words, each an argument of its own that ffmpeg takes as it is after the `=`.

    The source's are left out, but for languages: phones write where a film was taken.
    """
    if plan.kind.kind not in (Kind.VIDEO, Kind.AUDIO):
        return []
    tracks = [(f"a:{number}", sound.language) for number, sound in enumerate(plan.sounds)]
    tracks += [(f"s:{number}", words.language) for number, words in enumerate(plan.subtitles)]
    spoken = [
        word
        for track, language in tracks
        if language not in (None, "und") and re.fullmatch(LANGUAGE_PATTERN, language)
        for word in (f"-metadata:s:{track}", f"language={language}")
    ]
    written = [word for name, value in plan.metadata for word in ("-metadata", f"{name}={value}")]
    return ["-map_metadata", "-1", *written, *spoken]


def _set_arguments(plan: OutputPlan) -> list[str]:
    if plan.kind.kind is not Kind.PICTURE:
        return []
    if plan.is_set:
        return ["-start_number", "1"]
    return ["-frames:v", "1", "-update", "1"]


def _video_arguments(plan: OutputPlan, video: VideoPlan, threads: int, *, cut: bool) -> list[str]:
    encoder = video.encoder
    if encoder is None:
        return ["-c:v", "copy", *_copy_tag(plan, video)]
    if plan.kind.kind is Kind.PICTURE:
        quality = ["-q:v", "3"] if plan.container is Container.JPG else []
        return ["-c:v", encoder.name, "-threads", "1", *quality, "-fps_mode", "passthrough"]
    if plan.kind.kind is Kind.ANIMATION:
        return ["-c:v", encoder.name, "-fps_mode", "passthrough"]
    return [
        *("-c:v", encoder.name, *_rate_arguments(encoder, video)),
        *_preset_arguments(encoder, video),
        *(["-profile:v", video.profile] if video.profile else []),
        *_gop_arguments(encoder, video, threads, closed=plan.package is not None),
        *("-threads", str(threads), "-fps_mode", "vfr"),
        *(_BT709 if video.tone_map or video.from_rgb or video.presumed_bt709 else []),
        *_copy_tag(plan, video),
    ]


_BT709: Final = ("-color_primaries", "bt709", "-color_trc", "bt709", "-colorspace", "bt709")


_ISO_FILES: Final = (Container.MP4, Container.MOV, Container.HLS, Container.DASH)


def _copy_tag(plan: OutputPlan, video: VideoPlan) -> list[str]:
    """Apple's players open HEVC in MP4 only under this tag."""
    if video.family == "hevc" and plan.container in _ISO_FILES:
        return ["-tag:v", "hvc1"]
    return []


def _rate_arguments(encoder: VideoEncoder, video: VideoPlan) -> list[str]:
    arguments: list[str] = []
    if video.bitrate is not None:
        arguments += ["-b:v", str(video.bitrate)]
    elif video.crf is not None:
        arguments += ["-crf", f"{video.crf:g}"]
        if encoder.name in ("libvpx-vp9", "libaom-av1"):
            arguments += ["-b:v", "0"]  # or else the default bit rate caps the quality
        if encoder.name == "libvpx":
            arguments += ["-b:v", str(video.max_bitrate or 2_000_000)]  # VP8 has no pure quality
    elif encoder.name in ("mpeg4", "mpeg2video"):
        arguments += ["-q:v", "4"]
    # SVT-AV1 takes a peak only with constant quality.
    peak_allowed = encoder.name != "libsvtav1" or video.bitrate is None
    if video.max_bitrate is not None and peak_allowed and encoder.name != "prores_ks":
        arguments += ["-maxrate", str(video.max_bitrate), "-bufsize", str(2 * video.max_bitrate)]
    return arguments


def _preset_arguments(encoder: VideoEncoder, video: VideoPlan) -> list[str]:
    if video.preset is None:
        return []
    if encoder.name in ("libvpx", "libvpx-vp9"):
        # 4 halves the time of 1 for a few per cent of size; row-mt lets narrow pictures use cores.
        row_mt = ["-row-mt", "1"] if encoder.name == "libvpx-vp9" else []
        return ["-deadline", video.preset, "-cpu-used", "4", *row_mt]
    if encoder.name == "libaom-av1":
        return ["-cpu-used", video.preset, "-row-mt", "1"]
    return ["-preset", video.preset]


def _gop_arguments(
    encoder: VideoEncoder, video: VideoPlan, threads: int, *, closed: bool
) -> list[str]:
    """
    Fixed keyframes: every rendition must cut at the same instants, or players stall.

    A segment needs closed ones: no picture shown after its keyframe may refer to one before it.
    """
    if video.gop_frames is None or encoder.name == "prores_ks":
        return _own_threads(encoder, threads, "")
    gop = str(video.gop_frames)
    if encoder.name == "libx264":
        return ["-g", gop, "-keyint_min", gop, "-sc_threshold", "0"]
    if encoder.name == "libx265":
        open_gop = "open-gop=0:" if closed else ""
        return _own_threads(
            encoder, threads, f"keyint={gop}:min-keyint={gop}:scenecut=0:{open_gop}"
        )
    if encoder.name == "libsvtav1":
        refresh = "irefresh-type=2:" if closed else ""
        return ["-g", gop, *_own_threads(encoder, threads, f"scd=0:{refresh}")]
    return ["-g", gop, "-keyint_min", gop]


def _own_threads(encoder: VideoEncoder, threads: int, before: str) -> list[str]:
    """x265 and SVT-AV1 keep pools of their own that `-threads` does not bound."""
    if encoder.name == "libx265":
        return ["-x265-params", f"{before}pools={threads}:log-level=error"]
    if encoder.name == "libsvtav1":
        return ["-svtav1-params", f"{before}lp={threads}"]
    return []


def _audio_arguments(plan: OutputPlan, audio: AudioPlan, which: str, *, cut: bool) -> list[str]:
    """`which` is ffmpeg's name of the output's stream, such as `a:0`."""
    if audio.encoder is None:
        return [f"-c:{which}", "copy"]
    filters = []
    if cut and (plan.start_s or plan.length_s is not None):
        part = cut_filter(plan.start_s, plan.length_s)
        filters = [f"a{part}", f"asetpts=PTS-{plan.start_s:g}/TB"]
    if plan.package is not None:
        filters.append("aresample=async=1:first_pts=0")  # silence before it, and where it has gaps
    if audio.gain_db:
        # After the mix, whose loudness is the one that was measured.
        filters += [*_mix(audio.channels), f"volume={audio.gain_db:g}dB"]
    return [
        *([f"-filter:{which}", ",".join(filters)] if filters else []),
        *(f"-c:{which}", audio.encoder.name),
        *([f"-b:{which}", str(audio.bitrate)] if audio.bitrate is not None else []),
        *(f"-ac:{which}", str(audio.channels), f"-ar:{which}", str(audio.sample_rate)),
    ]
