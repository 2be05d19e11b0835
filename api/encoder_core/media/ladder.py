"""
Decide the renditions of an hls or dash output, and where their segments are cut. Pure.

Players change between renditions at any segment, so all of them have their keyframes at the same
instants, and a segment holds a whole number of keyframe distances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Final

from encoder_core.media.containers import ContainerKind
from encoder_core.media.geometry import warn_of_limit
from encoder_core.media.notes import Notes
from encoder_core.media.picture import GOP_S, encode_video
from encoder_core.media.planned import PackagePlan, RenditionPlan, VideoPlan
from encoder_core.media.probe import Probe
from encoder_core.specs import Container, OutputSpec, VideoSettings

SEGMENT_S: Final = 6.0  # what Apple asks for; shorter costs requests, longer costs start-up time

_SIZE: Final = frozenset({"width", "height"})
_RATE: Final = frozenset({"video_bitrate", "max_bitrate", "crf"})


def merge_rendition(spec: OutputSpec, rendition: VideoSettings) -> tuple[VideoSettings, set[str]]:
    """
    What a rendition is made by, and the names of the fields that are its own.

    A size, and likewise a rate, is taken from the output only as a whole: a rendition with a height
    of its own must not get the output's width, nor one with a bit rate the output's crf.
    """
    own = {name for name in VideoSettings.model_fields if getattr(rendition, name) is not None}
    inherited: dict[str, Any] = {}
    for name in set(VideoSettings.model_fields) - own:
        group = next((group for group in (_SIZE, _RATE) if name in group), frozenset({name}))
        if group.isdisjoint(own):
            inherited[name] = getattr(spec, name)
    return rendition.model_copy(update=inherited), own


def list_renditions(spec: OutputSpec, notes: Notes) -> list[tuple[VideoSettings, Notes]]:
    """Each rendition's settings, with notes that place its fields. One when none are given."""
    if spec.renditions is None:
        return [(spec, notes)]
    renditions = []
    for number, rendition in enumerate(spec.renditions):
        settings, own = merge_rendition(spec, rendition)
        renditions.append((settings, notes.of_rendition(number, own)))
    return renditions


def list_manifests(spec: OutputSpec) -> tuple[str, ...]:
    """The kinds of manifests, the container's own first."""
    own: str = spec.container.value
    asked: Sequence[str] = (spec.packaging.manifests if spec.packaging else None) or [own]
    return tuple(sorted(asked, key=lambda name: name != own))


def plan_package(
    spec: OutputSpec, kind: ContainerKind, probe: Probe, notes: Notes
) -> PackagePlan | None:
    """None, with the reason in the notes, when it cannot be made."""
    renditions: tuple[RenditionPlan, ...] = ()
    if spec.video_codec != "none":
        renditions = _plan_renditions(spec, kind, probe, notes)
    distances = {_keyframe_distance(rendition.video) for rendition in renditions}
    if len(distances) > 1:
        seconds = ", ".join(f"{float(distance):g}" for distance in sorted(distances))
        notes.refuse(
            "renditions",
            "keyframes_apart",
            f"their keyframes would be {seconds} s apart; give frame rates that are multiples of "
            "one another",
        )
        return None
    return PackagePlan(
        manifests=list_manifests(spec),
        renditions=renditions,
        segment_s=_segment_length(spec, distances.pop() if distances else None),
    )


def _plan_renditions(
    spec: OutputSpec, kind: ContainerKind, probe: Probe, notes: Notes
) -> tuple[RenditionPlan, ...]:
    source = probe.video
    if source is None:
        notes.warn("no_video", "The source has no picture; the output has sound only.")
        return ()
    if probe.video_streams > 1:
        notes.warn("video_stream_chosen", f"Of {probe.video_streams} video streams one is used.")
    asked = [
        (encode_video(settings, kind, source, own, rotate=spec.rotate or 0), settings, own)
        for settings, own in list_renditions(spec, notes)
    ]
    kept = [(plan, own) for plan, _, own in asked if not plan.limited]
    if not kept:
        # All are larger than the source: the smallest is made, at the source's size.
        plan, _, own = min(asked, key=lambda one: _asked_area(one[1]))
        warn_of_limit(own)
        kept = [(plan, own)]
    chosen: list[VideoPlan] = []
    for plan, own in kept:
        if plan in chosen:
            own.warn("rendition_dropped", "A rendition is left out: another one is the same.", "")
            continue
        chosen.append(plan)
    for plan, _, own in asked:
        if plan.limited and plan not in chosen:
            own.warn("rendition_dropped", "A rendition larger than the source is left out.", "")
    return tuple(
        RenditionPlan(name=name, video=plan)
        for name, plan in zip(_names(chosen), chosen, strict=True)
    )


def _asked_area(settings: VideoSettings) -> float:
    width, height = settings.width, settings.height
    return float((width or height or 0) * (height or width or 0))


def _names(plans: Sequence[VideoPlan]) -> list[str]:
    """By their shorter side, as people call them: a portrait 720x1280 is 720p as well."""
    names: list[str] = []
    for plan in plans:
        name = f"{min(plan.width, plan.height)}p"
        same = sum(other == name or other.startswith(f"{name}-") for other in names)
        names.append(f"{name}-{same + 1}" if same else name)
    return names


def _keyframe_distance(plan: VideoPlan) -> Fraction:
    assert plan.gop_frames is not None, "a package has a constant rate"
    assert plan.fps is not None
    return Fraction(plan.gop_frames) / plan.fps


def _segment_length(spec: OutputSpec, distance: Fraction | None) -> Fraction:
    asked = spec.packaging.segment_seconds if spec.packaging else None
    if distance is None:
        return Fraction(asked or SEGMENT_S).limit_denominator(1000)
    # Counted in what was asked for: 2 s are 2.002 s at 29.97 frames a second.
    gop_s = _asked_gop(spec)
    return max(1, round((asked or SEGMENT_S) / gop_s)) * distance


def _asked_gop(spec: OutputSpec) -> float:
    """Of the first that says so: all renditions have the same."""
    for rendition in spec.renditions or []:
        if rendition.gop_seconds is not None:
            return rendition.gop_seconds
    return spec.gop_seconds or GOP_S


def with_videos(package: PackagePlan, videos: Sequence[VideoPlan]) -> PackagePlan:
    """The same package with other plans of its renditions' pictures, in the same order."""
    return replace(
        package,
        renditions=tuple(
            replace(rendition, video=video)
            for rendition, video in zip(package.renditions, videos, strict=True)
        ),
    )


def check_packaging(spec: OutputSpec, notes: Notes) -> None:
    """What the request alone tells: rungs that are the same, and cuts that cannot be."""
    renditions = list_renditions(spec, notes)
    seen: list[tuple[Any, ...]] = []
    for settings, own in renditions:
        what = tuple(
            getattr(settings, name) for name in ("video_codec", "width", "height", "frame_rate",
                                                 *sorted(_RATE))
        )  # fmt: skip
        if what in seen:
            own.refuse("", "duplicate", "is the same as another rendition; leave it out")
        seen.append(what)
    distances = {settings.gop_seconds or GOP_S for settings, _ in renditions}
    if len(distances) > 1:
        notes.refuse(
            "renditions",
            "keyframes_apart",
            "all of them need the same gopSeconds; give it once, on the output",
        )
        return
    gop_s = distances.pop()
    packaging = spec.packaging
    if packaging is not None and packaging.segment_seconds is not None:
        times = packaging.segment_seconds / gop_s
        if spec.video_codec != "none" and (round(times) < 1 or abs(times - round(times)) > 1e-6):
            notes.refuse(
                "packaging/segment_seconds",
                "not_a_multiple",
                f"must be a whole number of times gopSeconds, which is {gop_s:g}",
            )
    manifests = list_manifests(spec)
    if len(set(manifests)) < len(manifests):
        notes.refuse("packaging/manifests", "duplicate", "names the same manifest twice")
    elif spec.container.value not in manifests:
        notes.refuse(
            "packaging/manifests",
            "missing",
            f'must contain "{spec.container.value}", which is the container',
        )


def allowed_families(spec: OutputSpec, kinds: dict[Container, ContainerKind]) -> tuple[str, ...]:
    """The codecs of pictures that all asked manifests can describe."""
    described = [kinds[Container(name)].video for name in list_manifests(spec)]
    return tuple(family for family in described[0] if all(family in more for more in described))
