"""Read the tags of languages: what one is called, and whether two mean the same. Pure."""

from __future__ import annotations

import re

from encoder_core.specs import LANGUAGE_PATTERN


def is_same_language(one: str, other: str) -> bool:
    """
    Whether they agree as far as both go: `pt` takes `pt-BR`, and `ger` is `deu` and `de`.

    Tags of files are foreign text: what is no tag is no language.
    """
    import langcodes  # its tables take a while to load, and few requests name a language

    try:
        first, second = (langcodes.standardize_tag(tag).split("-") for tag in (one, other))
    except ValueError:
        return False
    shared = min(len(first), len(second))
    return first[:shared] == second[:shared]


def standard_tag(tag: str | None) -> str | None:
    """
    A file's tag as browsers and manifests want it (BCP 47): `de` for `ger`.

    None when it says nothing of the language, or is none.
    """
    import langcodes

    try:
        standard: str = langcodes.standardize_tag(tag or "und")
    except ValueError:
        return None
    known = standard != "und" and re.fullmatch(LANGUAGE_PATTERN, standard)
    return standard if known else None
