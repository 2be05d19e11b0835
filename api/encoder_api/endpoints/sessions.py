"""The dashboard's login."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from encoder_api.contract import Call, Reply, Scope, answer, operation
from encoder_api.sessions import COOKIE
from encoder_core.documents import Document
from encoder_core.model import Model, Secret

TAG: Final = "session"


class Login(Model):
    key: Secret
    """An API key."""


class SessionDocument(Document):
    """Who the service takes you for."""

    name: str
    """The API key's name; `open` when none is needed."""
    owner: str
    scopes: list[str]
    login_needed: bool
    """Whether the service asks for API keys at all."""


@operation(
    "GET",
    "/session",
    tag=TAG,
    scope=Scope.JOBS_READ,
    replies={200: Reply(says="You may use the service.", model=SessionDocument)},
)
def read_session(call: Call[None, None]) -> Response:
    """Ask whether a login is needed, and whose it is; 401 when one is missing."""
    principal = call.principal
    return answer(
        SessionDocument(
            name=principal.name,
            owner=principal.owner,
            scopes=sorted(principal.scopes),
            login_needed=call.services.authenticator.needs_key(),
        )
    )


@operation(
    "POST",
    "/session",
    tag=TAG,
    scope=None,
    body=Login,
    refuses=("unauthorized",),
    replies={
        204: Reply(
            says="Logged in.", headers={"Set-Cookie": "The session, which scripts cannot read."}
        )
    },
)
def open_session(call: Call[Login, None]) -> Response:
    """Log in with an API key, for browsers."""
    services, key = call.services, call.body.key.get_secret_value()
    if services.authenticator.needs_key():
        services.authenticator.principal_of(key)
    response = Response(status_code=204)
    response.set_cookie(
        COOKIE,
        services.sessions.cookie_for(key),
        max_age=services.sessions.lifetime_s,
        httponly=True,
        samesite="strict",
        secure=call.request.url.scheme == "https",
    )
    return response


@operation(
    "DELETE",
    "/session",
    tag=TAG,
    scope=None,
    replies={204: Reply(says="Logged out, or was not logged in.")},
)
def close_session(call: Call[None, None]) -> Response:
    """Log out."""
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response
