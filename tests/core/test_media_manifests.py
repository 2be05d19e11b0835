"""What the manifests of a package say of its tracks, and that the walker finds what is not so."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from encoder_core.media.cmaf import Segment, Track
from encoder_core.media.manifests import (
    Stream,
    Text,
    build_master,
    build_mpd,
    build_playlist,
    build_text_playlist,
    target_seconds,
)
from encoder_core.media.naming import name_tracks
from encoder_core.media.verify_package import compare_manifests

PICTURE = Track(family="h264", codecs="avc1.64001f", timescale=12_800, width=1280, height=720)
SOUND = Track(family="aac", codecs="mp4a.40.2", timescale=48_000, channels=2, sample_rate=48_000)


def segments(timescale: int, *lengths_s: float, size: int) -> tuple[Segment, ...]:
    made, start = [], 0
    for length_s in lengths_s:
        ticks = round(length_s * timescale)
        made.append(
            Segment(start=start, duration=ticks, samples=1, keyframes=(start,), size_bytes=size)
        )
        start += ticks
    return tuple(made)


def rendition(name: str = "720p") -> Stream:
    return Stream(
        name=name,
        track=PICTURE,
        segments=segments(12_800, 5.4, 5.4, 2, size=500_000),
        prefix=f"film-hls-{name}",
        frame_rate=Fraction(25),
    )


def sounds(*languages: str | None) -> list[Stream]:
    return [
        Stream(
            name=named.name,
            track=SOUND,
            segments=segments(48_000, 5.52, 5.28, 2, size=100_000 + 10_000 * named.number),
            prefix=f"film-hls-{named.name}",
            channels=2,
            sound=named,
        )
        for named in name_tracks("audio", languages)
    ]


def texts(*languages: str | None, forced: tuple[bool, ...] = ()) -> list[Text]:
    return [
        Text(
            words=named,
            prefix=f"film-hls-{named.name}",
            size_bytes=4_000,
            duration_s=Fraction(128, 10),
        )
        for named in name_tracks("subtitles", languages, forced)
    ]


FILM = [rendition(), *sounds("ger", "eng", "ger", None)]
WORDS = texts("ger", "ger", "eng", forced=(False, True, False))


def lines_of(text: str, tag: str) -> list[str]:
    return [line.removeprefix(f"{tag}:") for line in text.splitlines() if line.startswith(tag)]


class TestHls:
    def test_each_sound_is_a_choice_of_one_group(self) -> None:
        said = lines_of(build_master(FILM), "#EXT-X-MEDIA")
        assert all(line.startswith('TYPE=AUDIO,GROUP-ID="audio",NAME=') for line in said)
        assert [line.partition("NAME=")[2].partition(",URI=")[0] for line in said] == [
            '"de",LANGUAGE="de",AUTOSELECT=YES,DEFAULT=YES,CHANNELS="2"',
            '"en",LANGUAGE="en",AUTOSELECT=YES,DEFAULT=NO,CHANNELS="2"',
            # RFC 8216, 4.3.4.1.1: what is selected by itself differs in its language.
            '"de 2",LANGUAGE="de",AUTOSELECT=NO,DEFAULT=NO,CHANNELS="2"',
            '"audio",AUTOSELECT=YES,DEFAULT=NO,CHANNELS="2"',
        ]
        assert [line.partition("URI=")[2] for line in said] == [
            f'"{stream.playlist}"' for stream in FILM[1:]
        ]

    def test_a_rendition_needs_bandwidth_for_the_heaviest_of_them(self) -> None:
        [said] = lines_of(build_master(FILM), "#EXT-X-STREAM-INF")
        heaviest = FILM[-1].peak_rate
        assert f"BANDWIDTH={FILM[0].peak_rate + heaviest}," in said
        assert 'CODECS="avc1.64001f,mp4a.40.2"' in said
        assert said.endswith('AUDIO="audio"')

    def test_without_pictures_the_first_sound_stands_for_all(self) -> None:
        master = build_master(sounds("ger", "eng"))
        assert len(lines_of(master, "#EXT-X-MEDIA")) == 2
        assert master.splitlines()[-1] == "film-hls-audio-de.m3u8"
        assert master.count("#EXT-X-STREAM-INF") == 1

    def test_one_sound_alone_is_no_choice(self) -> None:
        master = build_master(sounds("ger"))
        assert "#EXT-X-MEDIA" not in master
        assert "AUDIO=" not in master
        assert master.splitlines()[-1] == "film-hls-audio.m3u8"

    def test_subtitles_are_a_group_that_nobody_has_to_read(self) -> None:
        master = build_master(FILM, WORDS)
        said = lines_of(master, "#EXT-X-MEDIA")[len(FILM) - 1 :]
        assert all(line.startswith('TYPE=SUBTITLES,GROUP-ID="subtitles",NAME=') for line in said)
        forced = 'FORCED=YES,URI="film-hls-subtitles-de-forced.m3u8"'
        assert [line.partition("NAME=")[2] for line in said] == [
            '"de",LANGUAGE="de",AUTOSELECT=YES,DEFAULT=NO,URI="film-hls-subtitles-de.m3u8"',
            f'"de forced",LANGUAGE="de",AUTOSELECT=YES,DEFAULT=NO,{forced}',
            '"en",LANGUAGE="en",AUTOSELECT=YES,DEFAULT=NO,URI="film-hls-subtitles-en.m3u8"',
        ]
        [played] = lines_of(master, "#EXT-X-STREAM-INF")
        assert played.endswith('AUDIO="audio",SUBTITLES="subtitles"')

    def test_the_playlist_of_subtitles_is_one_file_as_long_as_the_film(self) -> None:
        assert build_text_playlist(WORDS[0]).splitlines() == [
            "#EXTM3U",
            "#EXT-X-VERSION:7",
            "#EXT-X-TARGETDURATION:13",
            "#EXT-X-PLAYLIST-TYPE:VOD",
            "#EXTINF:12.800000,",
            "film-hls-subtitles-de.vtt",
            "#EXT-X-ENDLIST",
        ]

    def test_all_playlists_have_one_target_duration(self) -> None:
        assert target_seconds(FILM[:1]) == 5
        assert target_seconds(FILM) == 6
        assert "#EXT-X-TARGETDURATION:6" in build_playlist(FILM[0], target_seconds(FILM))


class TestDash:
    def test_a_set_for_each_sound_says_language_and_role(self) -> None:
        mpd = build_mpd(FILM)
        [*_, german, english, again, unknown] = mpd.split("<AdaptationSet")
        assert 'lang="de"' in german
        assert 'role:2011" value="main"' in german
        assert 'lang="en"' in english
        assert 'role:2011" value="dub"' in english
        assert 'lang="de"' in again
        assert "<Label>de 2</Label>" in again
        assert 'role:2011" value="alternate"' in again
        assert "lang=" not in unknown
        assert 'role:2011" value="alternate"' in unknown

    def test_subtitles_are_files_beside_the_segments(self) -> None:
        [*_, german, forced, english] = build_mpd(FILM, WORDS).split("<AdaptationSet")
        assert ' contentType="text" mimeType="text/vtt" lang="de">' in german
        assert 'role:2011" value="subtitle"' in german
        assert "<BaseURL>film-hls-subtitles-de.vtt</BaseURL>" in german
        assert 'role:2011" value="forced-subtitle"' in forced
        assert 'lang="en"' in english

    def test_only_what_its_language_does_not_tell_apart_has_a_label(self) -> None:
        assert build_mpd(FILM).count("<Label>") == 1


def faults(
    streams: list[Stream],
    words: list[Text] | None = None,
    *,
    master: Callable[[str], str] = str,
    mpd: Callable[[str], str] = str,
    playlist: Callable[[str], str] = str,
    missing: str | None = None,
) -> list[str]:
    """What the walker finds in manifests that were changed after they had been written."""
    target_s, words = target_seconds(streams), words or []
    sizes = {
        stream.file(number): segment.size_bytes
        for stream in streams
        for number, segment in enumerate(stream.segments, start=1)
    }
    sizes |= {stream.init: 900 for stream in streams}
    sizes |= {text.file: text.size_bytes for text in words}
    playlists = {stream.playlist: build_playlist(stream, target_s) for stream in streams}
    playlists |= {text.playlist: build_text_playlist(text) for text in words}
    changed = streams[-1].playlist
    playlists[changed] = playlist(playlists[changed])
    sizes.pop(missing or "", None)
    findings = compare_manifests(
        streams,
        words,
        master=master(build_master(streams, words)),
        mpd=mpd(build_mpd(streams, words)),
        playlists=playlists,
        sizes=sizes,
    )
    return [finding.message for finding in findings]


def swap(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return change


@pytest.mark.parametrize(
    ("streams", "words"),
    [
        pytest.param(FILM, [], id="several sounds"),
        pytest.param(FILM, WORDS, id="several sounds and subtitles"),
        pytest.param([rendition(), *sounds("ger")], texts("ger"), id="one of each"),
        pytest.param([rendition(), rendition("360p")], texts(None), id="no sound"),
        pytest.param(sounds("ger", "eng"), WORDS, id="no picture"),
        pytest.param(sounds(None), [], id="one sound alone"),
        pytest.param(sounds(None), texts("eng"), id="one sound and its words"),
    ],
)
def test_what_was_written_can_be_followed(streams: list[Stream], words: list[Text]) -> None:
    assert faults(streams, words) == []


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        pytest.param({"master": swap('LANGUAGE="en"', 'LANGUAGE="fr"')},
                     "film-hls-audio-en.m3u8 is not listed as en.",
                     id="HLS: another language"),
        pytest.param({"master": swap('NAME="de 2"', 'NAME="de"')},
                     "The choices are not one group of different names.",
                     id="HLS: two sounds of one name"),
        pytest.param({"master": swap("AUTOSELECT=NO,DEFAULT=NO", "AUTOSELECT=NO,DEFAULT=YES")},
                     "film-hls-audio-de-2.m3u8 is the default, or should be.",
                     id="HLS: two defaults"),
        pytest.param({"master": swap(',AUDIO="audio"', "")},
                     "film-hls-720p.m3u8 is not listed with the choices of the package.",
                     id="HLS: a rendition without the sounds"),
        pytest.param({"master": swap("avc1.64001f,mp4a.40.2", "avc1.64001f")},
                     "film-hls-720p.m3u8 is not listed with all of its codecs.",
                     id="HLS: the codec of the sounds is left out"),
        pytest.param({"master": swap("film-hls-audio-en.m3u8", "film-hls-audio-de.m3u8")},
                     "A manifest does not list every stream of the package.",
                     id="HLS: one sound named twice, another not at all"),
        pytest.param({"playlist": swap("TARGETDURATION:6", "TARGETDURATION:7")},
                     "The playlists do not have one target duration.",
                     id="HLS: a target duration of its own"),
        pytest.param({"playlist": swap("und-00002.m4s", "und-00003.m4s")},
                     "film-hls-audio-und.m3u8 lists film-hls-audio-und-00003.m4s, which is not "
                     "there as measured.", id="HLS: a sound's segment twice"),
        pytest.param({"mpd": swap('lang="en"', 'lang="fr"')},
                     "audio-en is not listed as en.", id="DASH: another language"),
        pytest.param({"mpd": swap('value="dub"', 'value="main"')},
                     "audio-en is the main one, or should be.", id="DASH: two main sounds"),
        pytest.param({"mpd": swap('"mp4a.40.2"', '"mp4a.40.5"')},
                     "audio-de is not listed as mp4a.40.2.", id="DASH: another codec"),
        pytest.param({"master": swap(',SUBTITLES="subtitles"', "")},
                     "film-hls-720p.m3u8 is not listed with the choices of the package.",
                     id="HLS: a rendition without the subtitles"),
        pytest.param({"master": swap(",FORCED=YES", "")},
                     "film-hls-subtitles-de-forced.m3u8 is forced, or is not, and is not said so.",
                     id="HLS: forced subtitles that look like others"),
        pytest.param({"master": swap("subtitles-en.m3u8", "subtitles-de.m3u8")},
                     "A manifest does not list film-hls-subtitles-en.vtt.",
                     id="HLS: subtitles that are not listed"),
        pytest.param({"mpd": swap("subtitles-en.vtt", "subtitles-fr.vtt")},
                     "A manifest does not list film-hls-subtitles-en.vtt.",
                     id="DASH: another file of subtitles"),
        pytest.param({"mpd": swap('value="forced-subtitle"', 'value="subtitle"')},
                     "subtitles-de-forced is not listed as forced-subtitles in WebVTT.",
                     id="DASH: forced subtitles that look like others"),
        pytest.param({"missing": "film-hls-subtitles-de.vtt"},
                     "film-hls-subtitles-de.m3u8 lists film-hls-subtitles-de.vtt, which is not "
                     "there as measured.", id="a file of subtitles is not there"),
        pytest.param({"missing": "film-hls-audio-en-00003.m4s"},
                     "film-hls-audio-en.m3u8 lists film-hls-audio-en-00003.m4s, which is not "
                     "there as measured.", id="a sound's segment is not there"),
    ],
)  # fmt: skip
def test_what_is_not_so_is_found(changes: dict[str, Any], want: str) -> None:
    found = faults(FILM, WORDS, **changes)
    assert want in found, found


def test_too_little_bandwidth_is_found() -> None:
    peak = FILM[0].peak_rate + FILM[-1].peak_rate
    found = faults(FILM, master=swap(f"BANDWIDTH={peak}", "BANDWIDTH=1000"))
    assert found == ["film-hls-720p.m3u8 needs more than its listed bandwidth."]


@pytest.mark.parametrize(
    ("languages", "names"),
    [
        pytest.param(["ger"], ["audio"], id="a single one is called by its kind"),
        pytest.param(["ger", "en", "fr-CA"], ["audio-de", "audio-en", "audio-fr-CA"],
                     id="several by their languages"),
        pytest.param(["eng", "deu", "en"], ["audio-en", "audio-de", "audio-en-2"],
                     id="one of a language that there was before"),
        pytest.param([None, "und", "../x"], ["audio-und", "audio-und-2", "audio-und-3"],
                     id="what is no language is not in a file's name"),
    ],
)  # fmt: skip
def test_names(languages: list[str | None], names: list[str]) -> None:
    assert [named.name for named in name_tracks("audio", languages)] == names
