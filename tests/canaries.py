"""Unique words for credential fields, and the search for them in whatever comes out."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from urllib.parse import quote, quote_plus


def canary(name: str) -> str:
    """A word that occurs nowhere else, with characters that URLs quote and base64 hides."""
    return f"canary-{name}/6f+1="


def forms(word: str) -> set[str]:
    """The word as it is, as URLs and JSON write it, and as it looks inside any base64 text."""
    words = {word, quote(word), quote(word, safe=""), quote_plus(word)}
    once = json.dumps(word)[1:-1]
    words |= {once, json.dumps(once)[1:-1]}  # as a webhook's body lies in a log line of JSON
    return words | {_inside_base64(each, before) for each in words for before in range(3)}


def leaks(text: str, words: Iterable[str]) -> list[str]:
    """Which of the words the text gives away, in whatever form."""
    return sorted(word for word in words if any(form in text for form in forms(word)))


def _inside_base64(word: str, before: int) -> str:
    """What is sure to be seen of the word when `before` bytes, modulo 3, precede it."""
    text = base64.b64encode(b"\0" * before + word.encode()).decode().rstrip("=")
    begins = (0, 2, 3)[before]  # characters that the bytes before it have a part in
    ends = len(text) - (1 if (before + len(word.encode())) % 3 else 0)
    return text[begins:ends]
