"""
What hostile files and arguments try with ffmpeg, each tried twice: free, and in the sandbox.

Free, every one of them succeeds: that is what makes the second half a test. The arguments of the
first part go past every check of ours, as if a request had smuggled them in; what holds there is
the kernel alone. The files of the second part meet the arguments of the worker.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from encoder_core.clock import SystemClock
from encoder_core.errors import JobError
from encoder_core.media.command import build_probe_command
from encoder_worker.sandbox import Box, clean_environment
from encoder_worker.tools import Tools, find_tools, run_ffmpeg, run_probe
from tests.servers.http import HttpServer

CLIP = "h264_320x180_25p_2s_silent.mp4"
SEGMENT = "h264_320x180_25p_2s_stereo.ts"
SECRET = "what another job wrote"
GIVE_UP_S = 60.0
ANY_PROTOCOL = "-protocol_whitelist file,pipe,http,tcp,udp,rtp,concat,subfile,crypto,data"


@dataclass(frozen=True, slots=True)
class Place:
    """One job's folder beside another's, and a server that nobody may reach."""

    own: Path
    other: Path
    server: HttpServer

    @property
    def source(self) -> Path:
        return self.own / "source"

    def fill(self, text: str) -> str:
        return text.format(
            source=self.source, own=self.own, other=self.other, address=self.server.url
        )


@pytest.fixture(scope="module")
def tools() -> Tools:
    return find_tools()


@pytest.fixture
def place(tmp_path: Path, clip: Callable[[str], Path], http_server: HttpServer) -> Place:
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    other.mkdir()
    shutil.copyfile(clip(CLIP), own / "source")
    shutil.copyfile(clip(CLIP), other / "film.mp4")
    shutil.copyfile(clip(SEGMENT), other / "film.ts")
    (other / "secret").write_text(SECRET)
    http_server.serve("/latest/meta-data.ts", clip(SEGMENT).read_bytes())
    return Place(own, other, http_server)


def run_free(tools: Tools, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tools.ffmpeg, *arguments],
        cwd=folder,
        env=clean_environment(str(folder)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=GIVE_UP_S,
    )


REFUSALS = ("Permission denied", "not permitted", "Could not open", "Failed to open")
ONE_PICTURE = "-frames:v 1 -f null -"


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(f"-i {{other}}/film.mp4 {ONE_PICTURE}", id="read another job's film"),
        pytest.param(f"-i {{source}} -filter_complex movie={{other}}/film.mp4 {ONE_PICTURE}",
                     id="read it with the movie filter"),
        pytest.param(f"-i {{source}} -vf drawtext=textfile={{other}}/secret {ONE_PICTURE}",
                     id="draw another job's text with textfile"),
        pytest.param(f"-i {{source}} -vf drawtext=textfile=/etc/passwd {ONE_PICTURE}",
                     id="draw the machine's users"),
        pytest.param("-f data -i {other}/secret -map 0 -c copy -f data {own}/stolen",
                     id="copy a text as data"),
        pytest.param("-i {source} -attach {other}/secret -metadata:s:t mimetype=text/plain "
                     "-c copy -f matroska {own}/stolen", id="attach a text"),
        pytest.param(f"{ANY_PROTOCOL} -i concat:{{source}}|{{other}}/film.mp4 {ONE_PICTURE}",
                     id="put two files together with concat:"),
        pytest.param(f"{ANY_PROTOCOL} -i subfile,,start,0,end,0,,:{{other}}/film.mp4 {ONE_PICTURE}",
                     id="read a part of it with subfile"),
        pytest.param(f"-f concat -safe 0 -i {{own}}/list {ONE_PICTURE}", id="follow a concat list"),
        pytest.param(f"{ANY_PROTOCOL} -f hls -allowed_extensions ALL -i {{own}}/playlist "
                     f"{ONE_PICTURE}", id="follow a playlist to another job's file"),
        pytest.param(f"-i {{address}}/latest/meta-data.ts {ONE_PICTURE}",
                     id="ask a metadata service"),
        pytest.param(f"{ANY_PROTOCOL} -f hls -allowed_extensions ALL -i {{own}}/far {ONE_PICTURE}",
                     id="follow a playlist to a metadata service"),
        pytest.param("-i {source} -c copy -f mpegts udp://127.0.0.1:9", id="send it by UDP"),
        pytest.param("-i {source} -c copy -f mp4 -y {other}/film.mp4", id="overwrite a film"),
        pytest.param("-i {source} -map 0 -c copy -f tee [f=mp4]{own}/a|[f=mp4]{other}/b",
                     id="write a second file with tee"),
        pytest.param("-i {source} -vf metadata=print:file={other}/b -f null -",
                     id="write one with the metadata filter"),
    ],
)  # fmt: skip
def test_smuggled_arguments_meet_the_kernel(arguments: str, place: Place, tools: Tools) -> None:
    (place.own / "list").write_text(f"file {place.other}/film.mp4\n")
    for name, target in [
        ("playlist", f"{place.other}/film.ts"),
        ("far", f"{place.server.url}/latest/meta-data.ts"),
    ]:
        lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:2", "#EXTINF:2,", target, "#EXT-X-ENDLIST", ""]
        (place.own / name).write_text("\n".join(lines))
    command = ["-hide_banner", "-nostdin", *place.fill(arguments).split(" ")]
    free = run_free(tools, command, place.own)
    assert free.returncode == 0, free.stderr
    for made in (place.own / "stolen", place.other / "b"):
        made.unlink(missing_ok=True)
    shutil.copyfile(place.source, place.other / "film.mp4")
    asked = len(place.server.requests)

    readable = [place.own / name for name in ("list", "playlist", "far")]
    ended = run_ffmpeg(
        tools,
        command,
        Box(read=(place.source, *readable), write=(place.own,)),
        place.own,
        clock=SystemClock(),
        stall_s=GIVE_UP_S,
        on_progress=lambda _: None,
    )
    # The tee muxer alone goes on without what it may not write.
    assert ended.code != 0 or "-f tee" in arguments, ended.log
    assert any(refusal in ended.log for refusal in REFUSALS), ended.log
    assert SECRET not in ended.log
    assert len(place.server.requests) == asked
    assert (
        not (place.own / "stolen").exists()
        or SECRET.encode() not in (place.own / "stolen").read_bytes()
    )
    assert not (place.other / "b").exists()
    assert (place.other / "film.mp4").read_bytes() == place.source.read_bytes()


@pytest.mark.parametrize(
    ("text", "free_options"),
    [
        pytest.param("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{other}/film.mp4\n"
                     "#EXT-X-ENDLIST\n", "", id="an HLS playlist of another job's file"),
        pytest.param("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{address}/latest/meta-data.ts\n"
                     "#EXT-X-ENDLIST\n", "", id="an HLS playlist of a metadata service"),
        pytest.param("ffconcat version 1.0\nfile '../other/film.mp4'\n", "-safe 0",
                     id="a concat list"),
        pytest.param("v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
                     "m=video 24680 RTP/AVP 96\na=rtpmap:96 H264/90000\n", "-listen_timeout 1",
                     id="an SDP session"),
        pytest.param('<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"'
                     ' mediaPresentationDuration="PT2S" profiles="urn:mpeg:dash:profile:isoff-main'
                     ':2011"><Period><AdaptationSet><Representation id="1" mimeType="video/mp4" '
                     'bandwidth="1"><BaseURL>{address}/latest/meta-data.ts</BaseURL>'
                     '<SegmentBase/></Representation></AdaptationSet></Period></MPD>',
                     "", id="a DASH manifest"),
    ],
)  # fmt: skip
def test_a_list_that_poses_as_a_film_is_refused(
    text: str, free_options: str, place: Place, tools: Tools
) -> None:
    place.source.write_text(place.fill(text))
    posing = place.own / "posing.mp4"
    posing.symlink_to(place.source)
    # By its content alone ffprobe takes it for the list that it is, and follows it.
    follow = [*ANY_PROTOCOL.split(" "), *free_options.split(), "-v", "error", str(posing)]
    free = subprocess.run(
        [tools.ffprobe, *follow], capture_output=True, text=True, timeout=GIVE_UP_S, check=False
    )
    assert free.returncode == 0, free.stderr
    asked = len(place.server.requests)

    everything = Box(read=(place.source, place.other), write=())
    with pytest.raises(JobError, match="cannot read"):
        run_probe(tools, build_probe_command(str(posing)), everything, place.own)
    assert len(place.server.requests) == asked
