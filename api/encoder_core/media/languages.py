"""Say whether two tags mean the same language. Pure."""

from __future__ import annotations


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
