"""How the files of a set are called: after their destination, so that sets can share a folder."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from encoder_core.specs import Destination


def stem_of(destination: Destination) -> str:
    """The destination's own name without its ending, not escaped as in a URL."""
    url = getattr(destination, "url", None)
    if url is not None:
        path = unquote(urlsplit(url.get_secret_value()).path)
    else:
        path = getattr(destination, "path", None) or ""
    name = path.rpartition("/")[2]
    return name.rpartition(".")[0] or name or "output"
