"""
The named presets: what an output takes from one, and what its own fields take away. Pure.

They are filled in when a request is read, so that a job keeps the values it was accepted with.
Codecs are left to the container, whose defaults play everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

PresetName = Literal[
    "web-1080p", "web-720p", "web-480p", "web-360p", "adaptive", "podcast", "music", "poster",
    "seek-bar", "animation",
]  # fmt: skip

_1080P: Final = {"height": 1080, "crf": 23, "maxBitrate": "5M"}
_720P: Final = {"height": 720, "crf": 23, "maxBitrate": "2800k"}
_480P: Final = {"height": 480, "crf": 23, "maxBitrate": "1400k"}
_360P: Final = {"height": 360, "crf": 23, "maxBitrate": "800k"}

PRESETS: Final[Mapping[PresetName, Mapping[str, Any]]] = {
    "web-1080p": {"container": "mp4", **_1080P},
    "web-720p": {"container": "mp4", **_720P},
    "web-480p": {"container": "mp4", **_480P},
    "web-360p": {"container": "mp4", **_360P},
    "adaptive": {
        "container": "hls",
        "packaging": {"manifests": ["hls", "dash"]},
        "renditions": [_1080P, _720P, _480P, _360P],
    },
    "podcast": {"container": "mp3", "audioBitrate": "128k", "loudness": -16},
    "music": {"container": "m4a", "audioBitrate": "256k"},
    "poster": {"container": "jpg", "width": 1280},
    "seek-bar": {"container": "jpg", "thumbnails": {"intervalSeconds": 5, "sprite": {}}},
    "animation": {"container": "gif", "width": 320, "frameRate": 10},
}
"""As they are written in a request."""

_TAKEN_AWAY: Final[Mapping[str, frozenset[str]]] = {
    "videoBitrate": frozenset({"crf", "maxBitrate"}),
    "videoCodec": frozenset({"crf"}),  # one codec's quality is not another's
    "container": frozenset({"crf", "packaging", "renditions", "thumbnails"}),
    "width": frozenset({"height"}),
    "height": frozenset({"width"}),
}
"""What of a preset does not go with a field that the output has itself."""


def fill_in(name: PresetName, given: Mapping[str, Any]) -> dict[str, Any]:
    """An output as written, with what it leaves out from the preset."""
    preset = PRESETS[name]
    own = {field: value for field, value in given.items() if value is not None}
    changed = [field for field, value in own.items() if value != preset.get(field)]
    without = frozenset[str]().union(*(_TAKEN_AWAY.get(field, ()) for field in changed))
    return {field: preset[field] for field in preset if field not in without} | own
