"""The named presets: what an output takes from one, and what its own fields take away."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from encoder_core.media.check import check_request
from encoder_core.presets import PRESETS, PresetName
from encoder_core.specs import JobRequest, OutputSpec
from tests.core.test_media_plan import FILE


def output(**fields: Any) -> dict[str, Any]:
    """As it is stored, without its destination."""
    made = OutputSpec.model_validate({"destination": FILE, **fields}).to_json()
    return {name: value for name, value in made.items() if name != "destination"}


@pytest.mark.parametrize("name", get_args(PresetName))
def test_each_is_a_request_that_is_accepted(name: PresetName) -> None:
    assert output(basedOn=name) == output(**PRESETS[name]) | {"basedOn": name}
    request = {"source": {"kind": "http", "url": "http://a.example/in.mp4"},
               "outputs": [{"destination": FILE, "basedOn": name}]}  # fmt: skip
    assert check_request(JobRequest.model_validate(request)) == []


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        pytest.param(
            {"height": 700}, {"container": "mp4", "height": 700, "crf": 23, "maxBitrate": "2800k"},
            id="another size",
        ),
        pytest.param(
            {"width": 700}, {"container": "mp4", "width": 700, "crf": 23, "maxBitrate": "2800k"},
            id="the other side: the shape stays the source's",
        ),
        pytest.param(
            {"videoBitrate": "1M"}, {"container": "mp4", "height": 720, "videoBitrate": "1M"},
            id="a bit rate instead of a quality",
        ),
        pytest.param(
            {"crf": 20}, {"container": "mp4", "height": 720, "crf": 20, "maxBitrate": "2800k"},
            id="a better quality under the same cap",
        ),
        pytest.param(
            {"container": "webm"}, {"container": "webm", "height": 720, "maxBitrate": "2800k"},
            id="another container: its own codec's quality",
        ),
        pytest.param(
            {"crf": None}, {"container": "mp4", "height": 720, "crf": 23, "maxBitrate": "2800k"},
            id="null is left out",
        ),
    ],
)  # fmt: skip
def test_its_own_fields_win(fields: dict[str, Any], want: dict[str, Any]) -> None:
    assert output(basedOn="web-720p", **fields) == output(**want) | {"basedOn": "web-720p"}


def test_what_is_stored_is_read_as_it_was() -> None:
    once = output(basedOn="adaptive", container="mp4", videoCodec="hevc")
    assert output(**once) == once


def test_by_the_names_of_python_too() -> None:
    made = OutputSpec.model_validate({"destination": FILE, "based_on": "podcast"})
    assert (made.container, made.loudness) == ("mp3", -16)


def test_one_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ValueError, match=r"basedOn[\s\S]*web-720p"):
        output(basedOn="web-721p")
