"""
What is encoded and verified and waits for its delivery, kept beside the files.

A later attempt on the same machine delivers it without encoding again. `encoded.json` has, under
each output's index, the path of its main file, what it was made for and what it turned out to be.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, TypeAdapter, ValidationError

from encoder_core.failures import Warned
from encoder_core.model import Model
from encoder_core.reports import OrderedOutput, OutputResult
from encoder_core.specs import OutputSpec

NAME: Final = "encoded.json"


class EncodedFile(Model):
    path: str
    name: str | None = None
    """In a set: how it is called beside the destination."""
    size_bytes: int
    sha256: str
    content_type: str


class Encoded(Model):
    """One output, encoded and verified."""

    path: str
    """Of the main file; what a later order names as `encodedPath`."""
    spec_hash: str
    """Of everything in the spec but its destination, which a retry may change."""
    files: Annotated[list[EncodedFile], Field(min_length=1)]
    measured: OutputResult
    """As it will be reported, still without the delivered files."""
    warnings: list[Warned] = []


_ENTRIES: Final = TypeAdapter(dict[int, Encoded])


def hash_spec(spec: OutputSpec) -> str:
    document = spec.to_json()
    document.pop("destination", None)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Manifest:
    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._entries = read_entries(self._path)

    def add(self, index: int, encoded: Encoded) -> None:
        self._entries[index] = encoded
        data = {str(key): value.to_json() for key, value in self._entries.items()}
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(data))
        part.replace(self._path)


def read_entries(path: Path) -> dict[int, Encoded]:
    """The entries of a manifest; none when it is missing or was not finished."""
    try:
        return _ENTRIES.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return {}


def find_encoded(ordered: OrderedOutput, scratch: Path) -> Encoded | None:
    """What an earlier attempt left for this output, if it is whole and was made for this spec."""
    folders = [scratch]
    if ordered.encoded_path is not None:
        folders += list(Path(ordered.encoded_path).parents)[:2]
    wanted = hash_spec(ordered.spec)
    for folder in folders:
        encoded = read_entries(folder / NAME).get(ordered.index)
        if encoded is not None and encoded.spec_hash == wanted and _is_whole(encoded):
            return encoded
    return None


def _is_whole(encoded: Encoded) -> bool:
    try:
        return all(hash_file(Path(file.path)) == file.sha256 for file in encoded.files)
    except OSError:
        return False
