"""The verdict on a file: what may differ from the plan, and what may not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from encoder_core.media.probe import AudioStream, Probe, VideoStream
from encoder_core.media.verify import compare
from tests.core.test_media_plan import FILM, plan

VIDEO = VideoStream(index=0, codec="h264", width=640, height=360, frames=1500, duration_s=60.0)
AUDIO = AudioStream(
    index=1, codec="aac", channels=2, sample_rate=48_000, duration_s=60.02, packets=2800
)
GOOD = Probe(formats=("mov",), duration_s=60.02, video=VIDEO, audio=(AUDIO,), video_streams=1)


def with_video(**fields: Any) -> Probe:
    return replace(GOOD, video=replace(VIDEO, **fields))


def with_audio(**fields: Any) -> Probe:
    return replace(GOOD, audio=(replace(AUDIO, **fields),))


@pytest.mark.parametrize(
    ("made", "want"),
    [
        pytest.param(GOOD, [], id="as planned"),
        pytest.param(with_video(frames=1497), [], id="three frames less"),
        pytest.param(with_audio(duration_s=60.3), [], id="padding of the sound"),
        pytest.param(with_video(frames=1400), ["output_truncated"], id="frames are missing"),
        pytest.param(with_video(frames=0), ["output_truncated"], id="no frame"),
        pytest.param(replace(GOOD, video=None), ["output_truncated"], id="no picture"),
        pytest.param(replace(GOOD, audio=()), ["output_truncated"], id="no sound"),
        pytest.param(with_audio(packets=0), ["output_truncated"], id="an empty sound track"),
        pytest.param(with_audio(duration_s=40.0), ["output_truncated"], id="the sound ends early"),
        pytest.param(replace(GOOD, duration_s=30.0), ["output_truncated"], id="a short file"),
        pytest.param(replace(GOOD, duration_s=None), ["output_truncated"], id="no index"),
        pytest.param(replace(GOOD, duration_s=90.0), ["output_invalid"], id="a long file"),
        pytest.param(with_video(width=320), ["output_invalid"], id="another size"),
        pytest.param(with_video(codec="hevc"), ["output_invalid"], id="another codec"),
        pytest.param(with_audio(channels=1), ["output_invalid"], id="other channels"),
    ],
)
def test_compare(made: Probe, want: list[str]) -> None:
    assert [finding.code for finding in compare(plan(width=640), made)] == want


def test_sound_that_was_not_planned_is_found() -> None:
    findings = compare(plan(width=640, audioCodec="none"), GOOD)
    assert [finding.code for finding in findings] == ["output_invalid"]


HOUR = 3600.0
LONG = replace(
    FILM,
    duration_s=HOUR,
    video=replace(FILM.video, frames=None, duration_s=HOUR) if FILM.video else None,
    audio=tuple(replace(sound, duration_s=HOUR) for sound in FILM.audio),
)


@pytest.mark.parametrize(
    ("missing_s", "want"),
    [
        pytest.param(1.5, [], id="a second and a half"),
        pytest.param(2.5, ["output_truncated"], id="more than two seconds"),
        pytest.param(36.0, ["output_truncated"], id="one per cent"),
    ],
)
@pytest.mark.parametrize("what", ["picture", "sound", "file"])
def test_of_a_long_film_no_more_is_forgiven_than_of_a_short_one(
    what: str, missing_s: float, want: list[str]
) -> None:
    lasts = dict.fromkeys(("picture", "sound", "file"), HOUR) | {what: HOUR - missing_s}
    video = replace(VIDEO, frames=int(25 * lasts["picture"]), duration_s=lasts["picture"])
    audio = replace(AUDIO, packets=168_750, duration_s=lasts["sound"])
    made = replace(GOOD, duration_s=lasts["file"], video=video, audio=(audio,))
    planned = plan(LONG, width=640)
    assert {finding.code for finding in compare(planned, made)} == set(want)
