"""The way to the next page, for clients that follow links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from starlette.requests import Request

NEXT: Final = {"Link": 'To the next page (`rel="next"`), relative to this one; none on the last.'}
"""For the documentation of a page."""


def link_next(request: Request, name: str, value: object | None) -> Mapping[str, str]:
    """
    The same request with one parameter changed; nothing when there is no next page.

    Relative, since nobody here knows under which name and path a proxy offers the service.
    """
    if value is None:
        return {}
    kept = [pair for pair in request.query_params.multi_items() if pair[0] != name]
    return {"Link": f'<?{urlencode([*kept, (name, value)])}>; rel="next"'}
