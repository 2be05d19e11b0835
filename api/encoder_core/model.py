"""The base of every model on the wire, and the types that keep secrets from being printed."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    SecretStr,
    SerializationInfo,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel

REVEAL: Final = {"reveal": True}
"""Serialisation context that writes secrets in clear. Only sealing and work orders may use it."""

SECRET_QUERY_PARAMETERS: Final = re.compile(
    r"(?i)(x-(amz|goog|oss)-(signature|credential|security-token)|sig|signature|"
    r"((access|api|auth|client|id|refresh|secret|security|session)[_-]?)?(key|token|secret)|"
    r"password|passwd|auth|authorization|jwt|policy|key-pair-id)"
)
"""Query parameters whose values open something: signed URLs of the large clouds, and the usual."""


MAX_URL_BYTES: Final = 8192
_CONTROL: Final = re.compile(r"[\x00-\x1f]")
_NOT_IN_URL: Final = re.compile(r"[\x00-\x20\x7f\\]")


class Model(BaseModel):
    """camelCase on the wire, frozen, unknown fields refused, values never echoed in errors."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        str_max_length=65_536,
        allow_inf_nan=False,  # neither JSON nor MySQL can say them, and no limit refuses NaN
    )

    def to_json(self) -> dict[str, Any]:
        """The public form: without nulls, secrets shown as `{"set": true}`, URLs redacted."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def to_json_with_secrets(self) -> dict[str, Any]:
        """The same with secrets in clear, for sealing and for the worker that needs them."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, context=REVEAL)


def _in_one_width(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


Instant = Annotated[
    datetime,
    PlainSerializer(_in_one_width, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""In UTC and with its fraction, also when that is zero: as text, moments sort as in time."""


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number, and not true or false")
    return value


NOT_BOOLEAN: Final = BeforeValidator(_no_boolean)
"""
For numbers of a request: to Python `true` is 1, to whoever sent it by mistake it is not.

Stands after `Field`: before it, the limits would be missing in the JSON schema.
"""


def is_revealing(info: SerializationInfo) -> bool:
    return bool(info.context and info.context.get("reveal"))


def redact_url(url: str) -> str:
    """The URL without its password and with the values of signing parameters replaced."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    netloc = f"***@{host}" if "@" in parts.netloc else host
    if not parts.query:
        return urlunsplit((parts.scheme, netloc, parts.path, "", ""))
    query = "&".join(
        f"{quote(name)}=***"
        if SECRET_QUERY_PARAMETERS.fullmatch(name)
        else f"{quote(name)}={quote(value)}"
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    )
    return urlunsplit((parts.scheme, netloc, parts.path, query, ""))


def _dump_secret(value: SecretStr, info: SerializationInfo) -> str | dict[str, bool]:
    return value.get_secret_value() if is_revealing(info) else {"set": True}


def _dump_url(value: SecretStr, info: SerializationInfo) -> str:
    url = value.get_secret_value()
    return url if is_revealing(info) else redact_url(url)


def _check_secret(value: SecretStr, *, most: int) -> SecretStr:
    text = value.get_secret_value()
    if not text or len(text) > most or _CONTROL.search(text):
        raise ValueError(f"must have 1 to {most} characters and no control characters")
    return value


def check_url(value: SecretStr, *, schemes: tuple[str, ...]) -> SecretStr:
    """Refuse what two parsers could read differently; the dialler checks the address later."""
    url = value.get_secret_value()
    # Of bytes, since that bounds the URL as it is shown, too: three characters for each.
    if len(url.encode()) > MAX_URL_BYTES:
        raise ValueError(f"must have at most {MAX_URL_BYTES} bytes in UTF-8")
    if _NOT_IN_URL.search(url):
        raise ValueError("must not contain spaces, control characters or backslashes")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme.lower() not in schemes:
        raise ValueError(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if not host:
        raise ValueError("must name a host")
    if port == 0:
        raise ValueError("must not name port 0")
    return value


Secret = Annotated[
    SecretStr,
    AfterValidator(lambda value: _check_secret(value, most=4096)),
    PlainSerializer(_dump_secret),
    WithJsonSchema(
        {
            "type": "string",
            "writeOnly": True,
            "minLength": 1,
            "maxLength": 4096,
            "pattern": r"^[^\u0000-\u001f]+$",
        }
    ),
]
"""A credential: prints as `***`, is shown as `{"set": true}`, is stored only sealed."""


RenewedSecret = Annotated[
    SecretStr,
    AfterValidator(lambda value: _check_secret(value, most=MAX_URL_BYTES)),
    PlainSerializer(_dump_secret),
    WithJsonSchema(
        {
            "type": "string",
            "writeOnly": True,
            "minLength": 1,
            "maxLength": MAX_URL_BYTES,
            "pattern": r"^[^\u0000-\u001f]+$",
        }
    ),
]
"""In place of one that a job has, a signed URL as well: what it is for says what else must hold."""

_URL_SCHEMA = {"type": "string", "format": "uri", "maxLength": MAX_URL_BYTES}

HttpUrl = Annotated[
    SecretStr,
    AfterValidator(lambda url: check_url(url, schemes=("http", "https"))),
    PlainSerializer(_dump_url),
    WithJsonSchema(_URL_SCHEMA),
]
"""An http or https URL. Signed URLs are secrets, so each is shown redacted and stored sealed."""

FtpUrl = Annotated[
    SecretStr,
    AfterValidator(lambda url: check_url(url, schemes=("ftp", "ftps"))),
    PlainSerializer(_dump_url),
    WithJsonSchema(_URL_SCHEMA),
]
"""An ftp or ftps URL, possibly with a user and a password in it."""
