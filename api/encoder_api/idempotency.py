"""Requests that may be sent twice: read the caller's key, and recognise the same request."""

from __future__ import annotations

import json
import re
from typing import Final

from starlette.requests import Request

from encoder_api.problems import invalid_parameter
from encoder_core.model import Model
from encoder_core.sealing import KeyRing
from encoder_db.idempotency import Idempotency

HEADER: Final = "Idempotency-Key"
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")


def idempotency_of(request: Request, body: Model, *, keys: KeyRing) -> Idempotency | None:
    """The caller's key with a fingerprint of the request; None without a key. Raises Problem."""
    given = request.headers.getlist(HEADER)
    if not given:
        return None
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        wanted = "must be one value of 1 to 255 printable ASCII characters, no spaces"
        raise invalid_parameter(HEADER, wanted)
    return Idempotency(key=given[0], fingerprints=_fingerprints(request, body, keys))


def _fingerprints(request: Request, body: Model, keys: KeyRing) -> tuple[bytes, ...]:
    """Of what was understood, so that spaces and the order of members do not matter."""
    meant = [request.method, request.url.path, body.to_json_with_secrets()]
    message = json.dumps(meant, sort_keys=True, separators=(",", ":")).encode()
    return keys.fingerprints(message, purpose="idempotency")
