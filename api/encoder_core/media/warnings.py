"""Everything that a plan may warn of. Codes are public; `docs/media.md` lists this table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

WARNINGS: Final[Mapping[str, str]] = {
    "no_video": "The source has no picture; a video container holds its sound alone.",
    "no_audio": "The source has no sound; a video container holds its picture alone.",
    "video_stream_chosen": "The source has several films; the default one is used, or the first.",
    "audio_stream_chosen": "The source has several sounds; the default one is used, or the first.",
    "track_not_found": "The source has no such sound; the default one is used, or what was found.",
    "cover_dropped": "The file's cover art is not in the output.",
    "subtitles_dropped": "The source's subtitles are not in the output.",
    "turned_upright": "The file says that its picture is turned; the output's pixels are upright.",
    "pixels_made_square": "The source's pixels are not square; the output's are.",
    "size_rounded": "The source's size is odd; the codec needs an even one.",
    "not_upscaled": "The asked size is larger than the source; `upscale` allows it.",
    "rendition_dropped": "A rendition is larger than the source, or the same as another one.",
    "frame_rate_made_constant": "The source's frame rate varies; the output's does not.",
    "deinterlaced": "The source is interlaced; the output is progressive.",
    "hdr_to_sdr": "The source is HDR (PQ or HLG); the output is mapped to SDR, BT.709.",
    "depth_reduced": "The source has more than 8 bits a sample; the output has 8.",
    "chroma_reduced": "The source has more colour samples than 4:2:0; the output has not.",
    "still_source": "The source is one picture; the output shows it for one frame.",
    "clock_jumped": "The source's time stamps begin again within the file; the output goes on.",
    "video_copied": "The picture is what was asked for already, so it is copied and not encoded.",
    "audio_copied": "The sound is what was asked for already, so it is copied and not encoded.",
    "silent": "The sound is silent, so it cannot have the asked `loudness`.",
    "loudness_limited": "The asked `loudness` would cut off peaks; it stays below.",
    "downmixed": "The source has more channels than two; `audioChannels` keeps them.",
    "channels_not_raised": "The source has fewer channels than asked for; none are invented.",
    "bitrate_ignored": "The codec is lossless; `audioBitrate` means nothing to it.",
    "clip_shortened": "The clip goes beyond the end of the source, and ends with it.",
    "clip_at_keyframe": "A copied stream is cut at a keyframe, not where the clip says.",
}  # fmt: skip
"""Code to what happens, in the order in which a source is looked at."""
