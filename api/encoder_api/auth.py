"""
Who asks: an API key, a login of the dashboard, or, while there are no keys, this machine.

The service is never open by accident: beyond loopback it starts only with a key, or when
`ENCODER_AUTH=off` says so.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

from encoder_api.contract import Scope
from encoder_api.problems import Problem
from encoder_api.sessions import COOKIE, Sessions
from encoder_api.settings import ApiSettings, AuthMode, is_loopback
from encoder_core.clock import Clock, SystemClock
from encoder_core.errors import ConfigurationError
from encoder_core.specs import DEFAULT_OWNER
from encoder_db.keys import Principal, authenticate_key, has_keys
from encoder_db.store import Store

KEYS_SEEN_S: Final = 2.0  # for how long "there are no keys" is believed; the first key closes it
KEY_KNOWN_S: Final = 2.0  # for how long a key is known without a look: a revoked one ends then
MOST_KNOWN: Final = 1024
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

OPEN: Final = Principal(name="open", owner=DEFAULT_OWNER, scopes=frozenset({Scope.ADMIN.value}))
"""Who asks when nobody has to say so."""

FIRST: Final = Principal(
    name="ENCODER_API_KEY",
    owner=DEFAULT_OWNER,
    scopes=frozenset({Scope.ADMIN.value}),
    key="ENCODER_API_KEY",
)
"""Who asks with the key of the settings."""


def check_exposure(settings: ApiSettings, *, keys_exist: bool) -> None:
    """Refuse to start when everybody on the network could do everything. Raises."""
    if is_loopback(settings.host) or settings.auth is AuthMode.OFF:
        return
    if settings.api_key is None and not keys_exist:
        raise ConfigurationError(
            f"ENCODER_HOST={settings.host} is open to the network and there is no API key: set "
            "ENCODER_API_KEY, or make a key with `encoder keys create`, or say ENCODER_AUTH=off "
            "when everybody who can connect may do everything"
        )


def require_scope(principal: Principal, scope: Scope) -> None:
    if not {scope.value, Scope.ADMIN.value} & set(principal.scopes):
        raise Problem("forbidden", f"The API key {principal.name} lacks the scope {scope.value}.")


def visible_owner(principal: Principal) -> str | None:
    """Whose jobs a principal sees: its owner's, or everybody's (None) as admin."""
    return None if Scope.ADMIN.value in principal.scopes else principal.owner


class Authenticator:
    """Says who asks, or refuses. All but `recall` talks to the database: call it in a thread."""

    def __init__(
        self,
        settings: ApiSettings,
        store: Store,
        sessions: Sessions,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._sessions = sessions
        self._clock = clock or SystemClock()
        self._known: dict[bytes, tuple[Principal, float]] = {}
        self._lock = threading.Lock()
        self._closed = settings.api_key is not None
        self._believed_until_s = float("-inf")

    def recall(self, request: Request) -> Principal | None:
        """Whose key it is when that was asked a moment ago, without the database; else None."""
        presented = bearer_token(request.headers.get("authorization"))
        if presented is None or self.is_off:
            return None
        known = self._known.get(_digest(presented))
        return known[0] if known is not None and self._clock.monotonic() < known[1] else None

    def authenticate(self, request: Request) -> Principal:
        """The principal of a request. Raises Problem: 401, or 403 for other web pages."""
        if self.is_off:
            _refuse_foreign_page(request)
            return OPEN
        presented = bearer_token(request.headers.get("authorization"))
        if presented is not None:
            principal = self._find(presented)
            if principal is not None:
                self._remember(presented, principal)
                return principal
        if not self.needs_key():
            _refuse_foreign_host(request)
            _refuse_foreign_page(request)
            return OPEN
        if presented is not None:
            raise _unknown_key()
        key = self._sessions.key_of(request.cookies.get(COOKIE))
        if key is None:
            raise unauthorized("Send an API key as `Authorization: Bearer enc_…`.")
        _refuse_foreign_page(request)
        return self.principal_of(key)

    @property
    def is_off(self) -> bool:
        return self._settings.auth is AuthMode.OFF

    def needs_key(self) -> bool:
        """Whether keys are in force: from the first one on, for as long as this process lives."""
        if self.is_off:
            return False
        if not is_loopback(self._settings.host):
            return True
        with self._lock:
            if not self._closed and self._clock.monotonic() >= self._believed_until_s:
                with self._store.read() as tx:
                    self._closed = has_keys(tx)
                self._believed_until_s = self._clock.monotonic() + KEYS_SEEN_S
            return self._closed

    def principal_of(self, presented: str) -> Principal:
        """Whose key it is. Raises Problem (401)."""
        principal = self._find(presented)
        if principal is None:
            raise _unknown_key()
        return principal

    def _remember(self, presented: str, principal: Principal) -> None:
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[_digest(presented)] = (principal, self._clock.monotonic() + KEY_KNOWN_S)

    def _find(self, presented: str) -> Principal | None:
        first = self._settings.api_key
        if first is not None and hmac.compare_digest(
            first.get_secret_value().encode(), presented.encode()
        ):
            return FIRST
        return authenticate_key(self._store, presented)


def bearer_token(header: str | None) -> str | None:
    """The token of an Authorization header; None when there is none of that scheme."""
    scheme, _, token = (header or "").strip().partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and token else None


def _digest(presented: str) -> bytes:
    return hashlib.sha256(presented.encode()).digest()


def unauthorized(detail: str, *, presented: bool = False) -> Problem:
    challenge = 'Bearer realm="encoder"' + (', error="invalid_token"' if presented else "")
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": challenge})


def _unknown_key() -> Problem:
    return unauthorized("The API key is unknown or revoked.", presented=True)


def _refuse_foreign_host(request: Request) -> None:
    """A page of another site can point its own name at 127.0.0.1 (DNS rebinding)."""
    try:
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        host = ""
    if not is_loopback(host):
        raise Problem(
            "foreign_host",
            "Without an API key the service answers to localhost only; set ENCODER_API_KEY to "
            "use another name.",
        )


def _refuse_foreign_page(request: Request) -> None:
    """What a browser sends by itself proves nothing: its page must be one of ours."""
    if request.method in SAFE_METHODS:
        return
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    same_site = site in (None, "same-origin", "none")
    same_origin = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    if not (same_site and same_origin):
        raise Problem(
            "foreign_page", "Web pages of other origins may not change anything; send an API key."
        )
