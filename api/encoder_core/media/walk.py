"""
Follow manifests as a player does, down to every file that they name. Pure.

A small reader of our own, apart from the writer on purpose: what one gets wrong the other finds.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final
from urllib.parse import unquote

_ATTRIBUTE: Final = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^,]*)')
_MPD: Final = "{urn:mpeg:dash:schema:mpd:2011}"


class BadManifest(ValueError):
    """A manifest cannot be followed; the message says where it stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One stream as a manifest lists it."""

    init: str | None
    """None: text needs no header."""
    segments: tuple[tuple[str, Fraction], ...]
    """File names with their lengths in seconds."""
    attributes: Mapping[str, str]
    """What is said of it where a player chooses."""
    target_s: int | None = None
    """Of an HLS playlist: the longest segment that it promises."""

    @property
    def duration_s(self) -> Fraction:
        return sum((length for _, length in self.segments), Fraction(0))


def walk_hls(master: str, files: Mapping[str, str]) -> dict[str, Listed]:
    """
    Each media playlist that the master names, by its name, followed through `files`.

    One that is named twice, as a choice and as what is played, has what both say of it.
    """
    said: dict[str, dict[str, str]] = {}
    attributes: dict[str, str] | None = None
    lines = master.splitlines()
    if not lines or lines[0] != "#EXTM3U":
        raise BadManifest("the playlist does not begin with #EXTM3U")
    for line in lines:
        if line.startswith("#EXT-X-MEDIA:"):
            media = _attributes(line)
            said.setdefault(unquote(media["URI"]), {}).update(media)
        elif line.startswith("#EXT-X-STREAM-INF:"):
            attributes = _attributes(line)
        elif line and not line.startswith("#"):
            if attributes is None:
                raise BadManifest(f"{line} is listed without being described")
            said.setdefault(unquote(line), {}).update(attributes)
            attributes = None
    if attributes is not None:
        raise BadManifest("the last rendition is described and not listed")
    return {name: _read_playlist(name, files, what) for name, what in said.items()}


def _attributes(line: str) -> dict[str, str]:
    pairs = _ATTRIBUTE.findall(line.partition(":")[2])
    return {name: value.strip('"') for name, value in pairs}


def _read_playlist(name: str, files: Mapping[str, str], attributes: Mapping[str, str]) -> Listed:
    text = files.get(name)
    if text is None:
        raise BadManifest(f"{name} is listed and does not exist")
    init: str | None = None
    segments: list[tuple[str, Fraction]] = []
    length: Fraction | None = None
    target: int | None = None
    lines = text.splitlines()
    for line in lines:
        if line.startswith("#EXT-X-MAP:"):
            init = unquote(_attributes(line)["URI"])
        elif line.startswith("#EXT-X-TARGETDURATION:"):
            target = int(line.partition(":")[2])
        elif line.startswith("#EXTINF:"):
            length = Fraction(line.removeprefix("#EXTINF:").partition(",")[0])
        elif line and not line.startswith("#"):
            if length is None:
                raise BadManifest(f"{name} lists {line} without its length")
            segments.append((unquote(line), length))
            length = None
    if target is None or not segments or lines[-1] != "#EXT-X-ENDLIST":
        raise BadManifest(f"{name} is not complete")
    if any(int(length + Fraction(1, 2)) > target for _, length in segments):
        raise BadManifest(f"{name} lists a segment longer than its target")
    return Listed(init=init, segments=tuple(segments), attributes=attributes, target_s=target)


def walk_dash(mpd: str) -> dict[str, Listed]:
    """Each representation by its id."""
    try:
        root = ElementTree.fromstring(mpd)  # our own text, written a moment ago
    except ElementTree.ParseError as error:
        raise BadManifest(f"the MPD is not XML: {error}") from None
    found: dict[str, Listed] = {}
    for adaptation in root.iter(f"{_MPD}AdaptationSet"):
        for representation in adaptation.iter(f"{_MPD}Representation"):
            said = {**adaptation.attrib, **representation.attrib, **_roles(adaptation)}
            template = representation.find(f"{_MPD}SegmentTemplate")
            whole = representation.findtext(f"{_MPD}BaseURL")
            if template is not None:
                listed = _read_template(template, said)
            elif whole is not None:
                length = _read_duration(root.attrib["mediaPresentationDuration"])
                listed = Listed(init=None, segments=((unquote(whole), length),), attributes=said)
            else:
                raise BadManifest("a representation lists no segments")
            found[representation.attrib["id"]] = listed
    if not found:
        raise BadManifest("the MPD has no representation")
    return found


def _read_duration(text: str) -> Fraction:
    match = re.fullmatch(r"PT(\d+(?:\.\d+)?)S", text)
    if match is None:
        raise BadManifest(f"{text} is no duration")
    return Fraction(match[1])


def _roles(adaptation: ElementTree.Element) -> dict[str, str]:
    roles = [role.attrib["value"] for role in adaptation.iter(f"{_MPD}Role")]
    return {"role": " ".join(roles)} if roles else {}


def _read_template(template: ElementTree.Element, attributes: Mapping[str, str]) -> Listed:
    timescale = int(template.attrib["timescale"])
    number = int(template.attrib["startNumber"])
    media = unquote(template.attrib["media"].replace("$Number%05d$", "\0"))
    segments: list[tuple[str, Fraction]] = []
    for entry in template.iter(f"{_MPD}S"):
        for _ in range(int(entry.attrib.get("r", "0")) + 1):
            name = media.replace("\0", f"{number:05d}")
            segments.append((name, Fraction(int(entry.attrib["d"]), timescale)))
            number += 1
    return Listed(
        init=unquote(template.attrib["initialization"]),
        segments=tuple(segments),
        attributes=attributes,
    )
