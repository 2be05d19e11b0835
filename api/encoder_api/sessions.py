"""
Logins of the dashboard: the API key, sealed into a cookie that scripts cannot read.

Nothing is stored: the cookie opens only under the service's secret key, and the key in it is
looked up at every request, so that revoking the key ends the session.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Callable
from typing import Final

from encoder_core.sealing import CannotOpen, KeyRing

COOKIE: Final = "encoder_session"
_PURPOSE: Final = "session"


class Sessions:
    def __init__(
        self, keys: KeyRing, *, hours: float, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._keys = keys
        self._wall_clock = wall_clock
        self.lifetime_s = int(hours * 3600)

    def cookie_for(self, key: str) -> str:
        """The cookie's value for somebody who showed this API key."""
        ends = self._wall_clock() + self.lifetime_s
        content = json.dumps({"key": key, "ends": ends}).encode()
        return base64.urlsafe_b64encode(self._keys.seal(content, purpose=_PURPOSE)).decode()

    def key_of(self, cookie: str | None) -> str | None:
        """The API key in a cookie; None when it is none of ours or has ended."""
        if not cookie:
            return None
        try:
            sealed = base64.urlsafe_b64decode(cookie.encode())
            content = json.loads(self._keys.open(sealed, purpose=_PURPOSE))
        except (CannotOpen, binascii.Error, ValueError):
            return None
        return str(content["key"]) if content["ends"] > self._wall_clock() else None
