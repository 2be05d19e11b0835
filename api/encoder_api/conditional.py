"""ETags: an answer that did not change is not sent again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from encoder_api.cursors import made_with

# A browser may keep it and has to ask each time; no proxy may.
_CACHE = {"Cache-Control": "private, no-cache"}


def answer_unless_known(
    request: Request,
    model: BaseModel,
    *,
    headers: Mapping[str, str] | None = None,
    cursor: str | None = None,
) -> Response:
    """
    The model as the answer, or 304 when the client has it already.

    The tag is a hash of the answer itself: a job changes in more ways (progress, position in the
    queue) than its version counts. A `cursor` in it is another one each time for the same place,
    so only the key that made it counts, and the tag is a weak one.
    """
    body = model.model_dump_json(by_alias=True).encode()
    same = body if cursor is None else body.replace(cursor.encode(), made_with(cursor))
    tag = f'"{hashlib.sha256(same).hexdigest()[:32]}"'
    sent = {"ETag": tag if cursor is None else f"W/{tag}", **_CACHE, **(headers or {})}
    if matches(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers=sent)
    return Response(body, 200, sent, "application/json")


def matches(if_none_match: str | None, tag: str) -> bool:
    """Whether a list of tags, each perhaps weak, or `*`, has this one."""
    given = [part.strip() for part in (if_none_match or "").split(",")]
    return "*" in given or tag in [part.removeprefix("W/") for part in given]
