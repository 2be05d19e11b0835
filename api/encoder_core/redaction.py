"""Keep secrets out of what is stored and printed: split them off documents, blank them in text."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from encoder_core.model import Model

MASK = "***"
_SHORTEST = 4


def split_secrets(model: Model) -> tuple[dict[str, Any], dict[str, str]]:
    """
    The public document of a model, and its secrets by JSON pointer.

    Whatever the two serialisations of the model differ in is a secret, so a field that is given a
    secret type is split off without a list to keep.
    """
    public, clear = model.to_json(), model.to_json_with_secrets()
    secrets: dict[str, str] = {}
    _collect(public, clear, "", secrets)
    return public, secrets


def _collect(public: Any, clear: Any, pointer: str, into: dict[str, str]) -> None:
    if public == clear:
        return
    if isinstance(clear, str):
        into[pointer] = clear
    elif isinstance(clear, list):
        for index, (shown, value) in enumerate(zip(public, clear, strict=True)):
            _collect(shown, value, f"{pointer}/{index}", into)
    elif isinstance(clear, dict):
        for key, value in clear.items():
            _collect(public[key], value, f"{pointer}/{escape_pointer(key)}", into)


def merge_secrets(public: Mapping[str, Any], secrets: Mapping[str, str]) -> dict[str, Any]:
    """The document as it was before `split_secrets`."""
    merged: dict[str, Any] = _copy(public)
    for pointer, value in secrets.items():
        *path, last = [unescape_pointer(part) for part in pointer.split("/")[1:]]
        target: Any = merged
        for part in path:
            target = target[int(part)] if isinstance(target, list) else target[part]
        target[last] = value
    return merged


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def escape_pointer(part: str) -> str:
    """One step of a JSON pointer (RFC 6901)."""
    return part.replace("~", "~0").replace("/", "~1")


def unescape_pointer(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")


class Redactor:
    """
    Blanks known secrets in any text: as they are, URL-quoted, escaped in JSON, and in base64 at
    any alignment, which is how a password hides in a Basic authorization.

    Strings under four characters are left alone: blanking them would make text unreadable and
    hide nothing that cannot be guessed.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        forms: set[str] = set()
        for secret in secrets:
            if len(secret) >= _SHORTEST:
                forms |= {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}
                forms |= {json.dumps(secret)[1:-1], *_base64_forms(secret.encode())}
        # The longest first: a secret that contains another must not leave its tail behind.
        self._forms = sorted(forms, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, MASK)
        return text


def _base64_forms(secret: bytes) -> Iterator[str]:
    for lead in range(3):
        encoded = base64.b64encode(bytes(lead) + secret).decode()
        # The first and the last characters also hold bits of the neighbours, whatever those are.
        inner = encoded[(0, 2, 3)[lead] :].rstrip("=")
        if (lead + len(secret)) % 3:
            inner = inner[:-1]
        if len(inner) >= _SHORTEST:
            yield inner
            yield inner.replace("+", "-").replace("/", "_")


class RedactingFilter(logging.Filter):
    """A logging filter that blanks known secrets in a record's message, fields and traceback."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__()
        self._redact = redact

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = self._redact(record.getMessage())
        record.args = ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        for name, value in vars(record).items():
            if isinstance(value, str):
                setattr(record, name, self._redact(value))
        return True
