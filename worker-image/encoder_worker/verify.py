"""
Look at what ffmpeg made: whether each output is what was planned, and which files it is.

Nothing is read twice: a file by one ffprobe, a picture or a segment by ourselves.
"""

from __future__ import annotations

import errno
from pathlib import Path

from encoder_core.errors import JobError
from encoder_core.media.containers import Kind
from encoder_core.media.pictures import BadPicture, Picture, parse_picture
from encoder_core.media.planned import OutputPlan
from encoder_core.media.probe import Probe, VideoStream
from encoder_core.media.sprites import build_vtt, compare_tiles, compare_vtt, read_tiles
from encoder_core.media.verify import Finding, compare, invalid, truncated
from encoder_worker.examine import examine_output
from encoder_worker.made import Made, MadeFile
from encoder_worker.tools import Tools
from encoder_worker.verify_package import verify_package
from encoder_worker.verify_text import verify_text


def verify_output(tools: Tools, plan: OutputPlan, folder: Path) -> Made | list[Finding]:
    try:
        if plan.package is not None:
            return verify_package(plan, folder / str(plan.index))
        if plan.kind.kind is Kind.PICTURE:
            return _verify_pictures(plan, folder)
        if plan.kind.kind is Kind.TEXT:
            return verify_text(plan, folder)
        return _verify_file(tools, plan, folder)
    except OSError as error:
        return [explain_unreadable(error)]


def explain_unreadable(error: OSError) -> Finding:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Finding("capacity_disk", "The scratch disk is full.")
    return invalid(f"What was made cannot be read: {error.strerror}.")


def find_files(plan: OutputPlan, folder: Path) -> list[Path]:
    """Everything in the scratch folder that belongs to an output, whole or not."""
    if plan.package is not None:
        return sorted((folder / str(plan.index)).glob("*"))
    found = folder.glob(f"{plan.index}-*") if plan.is_set else folder.glob(f"{plan.index}.*")
    return sorted(found)


def _verify_file(tools: Tools, plan: OutputPlan, folder: Path) -> Made | list[Finding]:
    path = folder / plan.file_name
    if not path.is_file() or path.stat().st_size == 0:
        return [truncated("There is no file, or an empty one.")]
    try:
        measured = examine_output(tools, path, folder)
    except JobError as error:
        return [invalid(error.failure.message)]
    file = MadeFile(path, plan.kind.content_type)
    return compare(plan, measured) or Made(plan, (file,), measured)


# --- Pictures --------------------------------------------------------------------------------


def _verify_pictures(plan: OutputPlan, folder: Path) -> Made | list[Finding]:
    assert plan.video is not None
    paths = [folder / plan.file_name]
    if plan.is_set:
        paths = sorted(folder.glob(f"{plan.index}-*.{plan.kind.extension}"))
    count = plan.sprite.sheets if plan.sprite else len(plan.pictures) if plan.is_set else 1
    if len(paths) != count:
        return [truncated(f"There are {len(paths)} of {count} files.")]
    width, height = plan.video.width, plan.video.height
    if plan.sprite is not None:
        width, height = plan.sprite.columns * width, plan.sprite.rows * height
    wanted = Picture(plan.video.family, width, height)
    for number, path in enumerate(paths, start=1):
        if not path.is_file():
            return [truncated("There is no file.")]
        try:
            found = parse_picture(path.read_bytes())
        except BadPicture as error:
            return [truncated(f"Picture {number} is not whole: {error}.")]
        if found != wanted:
            size = f"{found.codec} {found.width}x{found.height}"
            return [invalid(f"Picture {number} is {size}, not {width}x{height}.")]
    files = tuple(
        MadeFile(path, plan.kind.content_type, _picture_name(plan, number))
        for number, path in enumerate(paths, start=1)
    )
    video = VideoStream(index=0, codec=wanted.codec, width=width, height=height, frames=count)
    measured = Probe(formats=("image2",), duration_s=None, video=video, video_streams=1)
    if plan.sprite is None:
        return Made(plan, files, measured)
    return _add_vtt(Made(plan, files, measured), folder, (width, height))


def _picture_name(plan: OutputPlan, number: int) -> str | None:
    return f"{plan.stem}-{number:05d}.{plan.kind.extension}" if plan.is_set else None


def _add_vtt(made: Made, folder: Path, size: tuple[int, int]) -> Made | list[Finding]:
    plan = made.plan
    with (folder / plan.tile_list).open(encoding="utf-8") as lines:
        findings = compare_tiles(plan, read_tiles(lines))
    if findings:
        return findings
    names = [file.name or "" for file in made.files]
    end_s = plan.start_s + (plan.shown_s or 0.0)
    path = folder / f"{plan.index}-sprite.vtt"
    path.write_text(build_vtt(plan, names, end_s), encoding="utf-8")
    findings = compare_vtt(plan, path.read_text(encoding="utf-8"), dict.fromkeys(names, size))
    vtt = MadeFile(path, "text/vtt", f"{plan.stem}.vtt")
    return findings or Made(plan, (vtt, *made.files), made.measured)
