"""Decide the sounds of an output: how many channels, at which rate, copied or not. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from encoder_core.media.codecs import COPY, NONE, AudioEncoder, find_audio_encoder
from encoder_core.media.containers import ContainerKind, Kind
from encoder_core.media.copying import may_copy_audio
from encoder_core.media.notes import Notes
from encoder_core.media.planned import AudioPlan
from encoder_core.media.probe import AudioStream, Probe
from encoder_core.media.timing import cut
from encoder_core.media.tracks import choose_tracks
from encoder_core.specs import OutputSpec, parse_bitrate

MAX_DELAY_S: Final = 0.1  # a viewer sees lips and words that are further apart


def plan_sounds(
    spec: OutputSpec, kind: ContainerKind, probe: Probe, notes: Notes
) -> tuple[AudioPlan, ...]:
    """The sounds of an output, the default one first."""
    if not kind.audio or spec.audio_codec == NONE:
        return ()
    if not probe.audio:
        if kind.kind is Kind.AUDIO:
            notes.refuse("container", "no_audio", "the source has no sound")
        else:
            notes.warn("no_audio", "The source has no sound; neither has the output.")
        return ()
    sounds = tuple(
        _plan_sound(spec, kind, probe, stream, notes)
        for stream in choose_tracks(spec, probe, notes)
    )
    families = list(dict.fromkeys(sound.family for sound in sounds))
    if kind.kind is Kind.PACKAGE and len(families) > 1:
        notes.refuse(
            "audio_codec",
            "codecs_differ",
            f"the sounds are {' and '.join(families)}, and players change only between sounds of "
            "one codec; name one instead of copy",
        )
    late_s = {stream.index: stream.late_s for stream in probe.audio}
    copied = [late_s[sound.stream] for sound in sounds if sound.encoder is None]
    if kind.kind is Kind.PACKAGE and any(late > MAX_DELAY_S for late in copied):
        notes.refuse(
            "audio_codec",
            "begins_late",
            f"a sound begins {max(copied):.1f} s late, and all tracks of a package begin together; "
            "name a codec instead of copy, and there will be silence before it",
        )
    return sounds


def _plan_sound(
    spec: OutputSpec, kind: ContainerKind, probe: Probe, source: AudioStream, notes: Notes
) -> AudioPlan:
    if spec.audio_codec == COPY:
        return _copy_audio(spec, kind, source, notes)
    encoder = find_audio_encoder(spec.audio_codec or kind.default_audio or "")
    assert encoder is not None, "checked by check_output"
    channels = _plan_channels(spec, encoder, source, notes)
    bitrate = parse_bitrate(spec.audio_bitrate) if spec.audio_bitrate else None
    if bitrate is not None and encoder.bitrate_per_channel is None:
        notes.warn("bitrate_ignored", f"{encoder.name} is lossless.", "audio_bitrate")
        bitrate = None
    elif bitrate is None and encoder.bitrate_per_channel is not None:
        bitrate = encoder.bitrate_per_channel * channels
    plan = AudioPlan(
        stream=source.index,
        encoder=encoder,
        family=encoder.family,
        channels=channels,
        sample_rate=_plan_sample_rate(spec, encoder, source),
        language=source.language,
        loudness=spec.loudness,
        bitrate=bitrate,
    )
    if may_copy_audio(spec, kind, probe, source, plan):
        notes.warn("audio_copied", "The sound is what was asked for already: it is copied.")
        return _copied(source)
    return plan


def _copy_audio(
    spec: OutputSpec, kind: ContainerKind, source: AudioStream, notes: Notes
) -> AudioPlan:
    if source.codec not in kind.audio:
        notes.refuse(
            "audio_codec",
            "codec_not_in_container",
            f"the source is {source.codec}, which {spec.container.value} cannot hold; name a codec",
        )
    return _copied(source)


def _copied(source: AudioStream) -> AudioPlan:
    return AudioPlan(
        stream=source.index,
        encoder=None,
        family=source.codec,
        channels=source.channels,
        sample_rate=source.sample_rate,
        language=source.language,
    )


def _plan_channels(
    spec: OutputSpec, encoder: AudioEncoder, source: AudioStream, notes: Notes
) -> int:
    """Stereo at most unless more is asked for: that is what plays everywhere."""
    if spec.audio_channels is None:
        channels = min(source.channels, 2, encoder.max_channels)
        if channels < source.channels:
            notes.warn(
                "downmixed",
                f"{source.channels} channels become {channels}; audioChannels keeps more.",
            )
        return channels
    # Mono to stereo is a copy of the channel; anything wider would be invented.
    possible = max(source.channels, 2)
    if spec.audio_channels > possible:
        notes.warn("channels_not_raised", f"The source has only {source.channels} channels.",
                   "audio_channels")  # fmt: skip
    return min(spec.audio_channels, possible)


def _plan_sample_rate(spec: OutputSpec, encoder: AudioEncoder, source: AudioStream) -> int:
    wanted = spec.audio_sample_rate or source.sample_rate
    if not encoder.sample_rates or wanted in encoder.sample_rates:
        return wanted
    higher = [rate for rate in encoder.sample_rates if rate >= wanted]
    return min(higher) if higher else max(encoder.sample_rates)


def with_audio_length(
    plan: AudioPlan, start: float, length: float | None, probe: Probe, *, from_zero: bool = False
) -> AudioPlan:
    """With `from_zero` a sound that begins late has silence before it."""
    source = next(stream for stream in probe.audio if stream.index == plan.stream)
    duration = source.duration_s or probe.duration_s
    if duration is not None and from_zero:
        duration += source.late_s
    return replace(plan, duration_s=cut(duration, start, length))
