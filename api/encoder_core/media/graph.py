"""
The filter graph of a job: one decode, split to every picture that is made anew. Pure.

The branch of a picture ends in `[oNAME]`, which its output's arguments map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from encoder_core.media.containers import Kind
from encoder_core.media.planned import OutputPlan, VideoPlan, WatermarkPlan
from encoder_core.media.reduction import find_reduction
from encoder_core.media.watermarks import PREPARE_IMAGE, image_filters, overlay_filter

# Scale first: the light is then mapped on as few pixels as there will be.
_TONE_MAP: Final = (
    "zscale=t=linear:npl=100",
    "format=gbrpf32le",
    "zscale=p=bt709",
    "tonemap=tonemap=hable:desat=0",
    "zscale=t=bt709:m=bt709:r=tv",
)

# Or else the scaler takes it for BT.601, and so do players of a smaller rendition.
_PRESUME_BT709: Final = "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709"


class Marks:
    """The images of watermarks, each read once, and a copy of one for every picture it lies on."""

    def __init__(self, plans: Sequence[OutputPlan], images: Mapping[int, str]) -> None:
        self._of_branch = {
            name: images[plan.index]
            for plan in plans
            for _, video, name in find_branches(plan)
            if video.watermark is not None
        }
        self.files = list(dict.fromkeys(self._of_branch.values()))

    def split(self) -> list[str]:
        """The chains that copy them. The source is input 0."""
        chains = []
        for number, image in enumerate(self.files, start=1):
            names = [f"[w{name}]" for name, file in self._of_branch.items() if file == image]
            head = f"{PREPARE_IMAGE},split={len(names)}" if len(names) > 1 else PREPARE_IMAGE
            chains.append(f"[{number}:0]{head}{''.join(names)}")
        return chains


def build_graph(plans: Sequence[OutputPlan], marks: Marks, *, cut: bool) -> str:
    """One decode, split to every encoded output; a copied stream needs no filter."""
    encoded = [branch for plan in plans for branch in find_branches(plan)]
    if not encoded:
        return ""
    first = encoded[0][1]
    before = [_PRESUME_BT709] if first.presumed_bt709 else []
    before += ["yadif=mode=send_frame:deint=interlaced"] if first.deinterlace else []
    reduction = find_reduction(encoded)
    reduced = reduction.names if reduction else frozenset()
    whole = [f"[v{name}]" for _, _, name in encoded if name not in reduced]
    source, chains = f"[0:{first.stream}]", []
    if whole:
        taken = [*whole, "[reduced]"] if reduction else whole
        chains.append(f"{source}{_split(before, taken)}")
        source, before = "[reduced]", []
    if reduction:
        steps = [*before, _scale(*reduction.size), *(_TONE_MAP if reduction.tone_map else ())]
        steps.append(f"format={reduction.pixel_format}")
        chains.append(f"{source}{_split(steps, [f'[v{name}]' for name in sorted(reduced)])}")
    chains += marks.split()
    for plan, video, name in encoded:
        rest = video
        if reduction and name in reduced:
            scale = None if video.scale == reduction.size else video.scale
            rest = replace(video, scale=scale, tone_map=False)
        chains.append(f"[v{name}]{_build_branch(plan, rest, name, cut=cut)}[o{name}]")
    return ";".join(chains)


def _split(steps: list[str], labels: list[str]) -> str:
    """A chain whose frames go to each of them."""
    end = [f"split={len(labels)}"] if len(labels) > 1 else []
    return f"{','.join([*steps, *end]) or 'null'}{''.join(labels)}"


def _scale(width: int | str, height: int | str) -> str:
    return f"scale={width}:{height}:flags=bicubic"


def find_branches(plan: OutputPlan) -> list[tuple[OutputPlan, VideoPlan, str]]:
    """The pictures of an output that are made anew, each with the name of its branch."""
    if plan.package is not None:
        return [
            (plan, rendition.video, f"{plan.index}r{number}")
            for number, rendition in enumerate(plan.package.renditions)
        ]
    if plan.video is None or plan.video.encoder is None:
        return []
    return [(plan, plan.video, str(plan.index))]


def _build_branch(plan: OutputPlan, video: VideoPlan, name: str, *, cut: bool) -> str:
    assert video.encoder is not None
    steps = []
    if plan.pictures:
        steps.append(_select(plan))
    elif cut and (plan.start_s or plan.length_s is not None):
        steps += [cut_filter(plan.start_s, plan.length_s), f"setpts=PTS-{plan.start_s:g}/TB"]
    if video.frame_rate is not None:
        # Players of segments pass over the edit list that would say how late a track begins.
        from_zero = ":start_time=0" if plan.package is not None else ""
        # What is shorter than half a frame, a still picture above all, would be rounded to none.
        brief = video.duration_s is not None and video.duration_s * video.frame_rate <= 0.5
        steps.append(f"fps={video.frame_rate}{from_zero}{':eof_action=pass' if brief else ''}")
        if plan.length_s is not None:
            # At the end of its input fps repeats the last frame up to the end of the source.
            steps.append(f"trim=duration={plan.length_s:g}")
    steps += _TURNS.get(video.rotate, [])
    if video.scale is not None or video.from_rgb:
        width, height = video.scale or ("iw", "ih")
        # Without a word ffmpeg would take the colours of 1982's television, and not say so.
        matrix = ":out_color_matrix=bt709" if video.from_rgb else ""
        steps.append(f"{_scale(width, height)}{matrix}")
    if video.crop is not None:
        steps.append(f"crop={video.crop[0]}:{video.crop[1]}")
    if plan.choice is not None:
        steps.append(f"thumbnail={plan.choice.frames}")
    if video.tone_map:
        steps += _TONE_MAP
    if video.family == "mjpeg":
        # A JPEG cannot say what its colours are: whoever shows it takes them for BT.601.
        steps.append(f"{_scale('iw', 'ih')}:out_color_matrix=smpte170m:out_range=pc")
    steps.append("setsar=1")
    if video.watermark is not None:
        steps.append(_lay_over(video.watermark, video.encoder.pixel_format, name))
    if plan.sprite is not None:
        # The list says which pictures there were: a sheet whose last ones are missing looks whole.
        steps += [
            "metadata=mode=add:key=tile:value=1",
            f"metadata=mode=print:file={plan.tile_list}",
            f"tile={plan.sprite.columns}x{plan.sprite.rows}",
        ]
    if plan.kind.kind is Kind.ANIMATION:
        # A palette a frame needs no second look at the clip, so memory stays flat.
        palette = f"[g{plan.index}]"
        paint = f"[h{plan.index}]"
        return (
            f"{','.join(steps)},split{palette}{paint};"
            f"{palette}palettegen=stats_mode=single[p{plan.index}];"
            f"{paint}[p{plan.index}]paletteuse=new=1"
        )
    steps.append(f"format={video.encoder.pixel_format}")
    return ",".join(steps)


def _lay_over(mark: WatermarkPlan, pixel_format: str, name: str) -> str:
    """The picture's chain goes on behind it. Its own format first: no colour is made twice."""
    made = "rgb24" if pixel_format == "pal8" else pixel_format
    image = f"[w{name}]{image_filters(mark, pixel_format)}[m{name}]"
    return f"format={made}[b{name}];{image};[b{name}][m{name}]{overlay_filter(mark, pixel_format)}"


_TURNS: Final = {90: ["transpose=clock"], 180: ["hflip", "vflip"], 270: ["transpose=cclock"]}


def cut_filter(start_s: float, length_s: float | None) -> str:
    """Keeps a part of the frames; with an `a` before it, of a sound."""
    options = [f"start={start_s:g}"]
    if length_s is not None:
        options.append(f"duration={length_s:g}")
    return f"trim={':'.join(options)}"


def _select(plan: OutputPlan) -> str:
    """
    The first frame at or after each instant, or those that one is chosen of.

    Commas are escaped for the graph's own syntax.
    """
    if plan.choice is not None:
        [instant] = plan.pictures
        limit = rf"lt(selected_n\,{plan.choice.frames})"
        return rf"select=gte(t\,{instant:.6f})*{limit}*not(mod(n\,{plan.choice.every}))"
    terms = [
        rf"gte(t\,{instant:.6f})*(isnan(prev_t)+lt(prev_t\,{instant:.6f}))"
        for instant in plan.pictures
    ]
    return f"select={'+'.join(terms)}"
