"""Look at a file of WebVTT: an output of its own, or the subtitles of a package."""

from __future__ import annotations

from pathlib import Path

from encoder_core.media.cues import Cues, compare_cues, read_cues
from encoder_core.media.planned import OutputPlan, SubtitlePlan
from encoder_core.media.probe import Probe, SubtitleStream
from encoder_core.media.verify import Finding, invalid, truncated
from encoder_worker.made import Made, MadeFile


def verify_text(plan: OutputPlan, folder: Path) -> Made | list[Finding]:
    path = folder / plan.file_name
    [words] = plan.subtitles
    cues = verify_cues(plan, words, path)
    if not isinstance(cues, Cues):
        return cues
    measured = Probe(
        formats=("webvtt",),
        duration_s=cues.last_end_s,
        subtitle_streams=1,
        subtitles=(as_stream(words, 0),),
    )
    return Made(plan, (MadeFile(path, plan.kind.content_type),), measured)


def verify_cues(plan: OutputPlan, words: SubtitlePlan, path: Path) -> Cues | list[Finding]:
    if not path.is_file():
        return [truncated("There is no file of subtitles.")]
    try:
        with path.open(encoding="utf-8") as lines:
            cues = read_cues(lines)
    except UnicodeDecodeError:
        return [invalid("The subtitles are not UTF-8.")]
    return compare_cues(plan, words, cues) or cues


def as_stream(words: SubtitlePlan, index: int) -> SubtitleStream:
    return SubtitleStream(
        index=index, codec=words.family, language=words.language, forced=words.forced
    )
