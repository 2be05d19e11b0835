"""HTTP and HTTPS: a GET that can go on after a cut, and a PUT or POST with a known length."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import IO, Final
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from pydantic import SecretStr
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError, SSLError

from encoder_core.egress_http import CheckedHttp, host_of, origin_of
from encoder_core.errors import JobError
from encoder_core.model import check_url
from encoder_core.specs import HttpDestination, HttpSource
from encoder_core.storage.base import Access, Delivered, SourceStat, Upload
from encoder_core.storage.failing import Side, failure_of_status, with_retries

CHUNK_BYTES: Final = 1024 * 1024
MAX_REDIRECTS: Final = 5
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
REDIRECTS_WITH_BODY: Final = frozenset({307, 308})  # the others turn an upload into a GET
ANSWER_BYTES: Final = 65_536  # of an upload's answer; read so that the connection ends cleanly

_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)$")


class _Client:
    """Requests to one user-given URL, redirects checked hop by hop."""

    def __init__(
        self, side: Side, url: SecretStr, headers: Mapping[str, SecretStr] | None, access: Access
    ) -> None:
        self.side = side
        self.url, authorization = _split_user(url.get_secret_value())
        self.host = host_of(self.url)
        self._headers = {name: value.get_secret_value() for name, value in (headers or {}).items()}
        if authorization is not None:
            self._headers.setdefault("Authorization", authorization)
        self._http = CheckedHttp(
            access.dialler,
            connect_timeout_s=access.connect_timeout_s,
            read_timeout_s=access.read_timeout_s,
        )

    def send(
        self,
        method: str,
        own_headers: Mapping[str, str],
        *,
        url: str | None = None,
        body: IO[bytes] | None = None,
    ) -> BaseHTTPResponse:
        """The answer after redirects. Raises JobError; an error status is an answer."""
        target = url or self.url
        headers = {**self._headers, **own_headers}
        for _ in range(MAX_REDIRECTS + 1):
            response = self._send_once(method, target, headers, body)
            allowed = REDIRECTS if body is None else REDIRECTS_WITH_BODY
            location = response.headers.get("Location")
            if response.status not in allowed or not location:
                return response
            response.close()
            following = self._check_redirect(target, location)
            if origin_of(following) != origin_of(target):
                # Whatever the caller set may be a credential: it is for the host it was set for.
                headers = dict(own_headers)
            target = following
            if body is not None:
                body.seek(0)
        raise self.side.fail("rejected", f"{self.host} redirects more than {MAX_REDIRECTS} times.")

    def _send_once(
        self, method: str, url: str, headers: Mapping[str, str], body: IO[bytes] | None
    ) -> BaseHTTPResponse:
        host = host_of(url)
        try:
            return self._http.send(method, url, headers=headers, body=body)
        except SSLError as error:
            raise self.side.fail(
                "rejected", f"The TLS certificate of {host} is not valid."
            ) from error
        except HTTPError as error:
            what = type(error).__name__
            raise self.side.fail("unreachable", f"{host} did not answer ({what}).") from error

    def _check_redirect(self, url: str, location: str) -> str:
        following = urljoin(url, location)
        try:
            check_url(SecretStr(following), schemes=("http", "https"))
        except ValueError:
            raise self.side.fail("rejected", f"{host_of(url)} redirects to no HTTP URL.") from None
        if urlsplit(url).scheme == "https" and urlsplit(following).scheme != "https":
            raise self.side.fail("rejected", f"{host_of(url)} redirects from https to http.")
        return following

    def refuse(self, response: BaseHTTPResponse) -> JobError:
        response.close()
        retry_after = response.headers.get("Retry-After")
        return failure_of_status(self.side, self.host, response.status, retry_after=retry_after)


def _split_user(url: str) -> tuple[str, str | None]:
    """The URL without its user and password, and the header that says them."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    bare = urlunsplit((parts.scheme.lower(), host, parts.path or "/", parts.query, ""))
    if not at:
        return bare, None
    token = base64.b64encode(unquote(user).encode()).decode()
    return bare, f"Basic {token}"


class HttpSourceConnector:
    def __init__(self, source: HttpSource, access: Access) -> None:
        self.local_path = None
        self._client = _Client(Side.SOURCE, source.url, source.headers, access)
        self._clock = access.clock

    def stat(self) -> SourceStat:
        """Asked with a GET for one byte: signed URLs are often good for GET alone."""
        response = self._get({"Range": "bytes=0-0"})
        response.close()
        validator = _strong_validator(response)
        if response.status == 206:
            _, _, total = self._content_range(response)
            return SourceStat(total, validator, ranges=True)
        if response.status == 416:
            return SourceStat(0, validator, ranges=False)
        return SourceStat(_length(response), validator, ranges=False)

    def read(self, *, offset: int = 0, validator: str | None = None) -> Iterator[bytes]:
        headers = {}
        if validator is not None:
            headers["If-Match"] = validator
        if offset:
            headers["Range"] = f"bytes={offset}-"
        response = self._get(headers)
        try:
            self._check_answer(response, offset, validator)
            yield from self._chunks(response)
        finally:
            response.close()

    def _get(self, headers: Mapping[str, str]) -> BaseHTTPResponse:
        def ask() -> BaseHTTPResponse:
            response = self._client.send("GET", {"Accept-Encoding": "identity", **headers})
            if response.status in (200, 206, 412, 416):
                return response
            raise self._client.refuse(response)

        response = with_retries(ask, clock=self._clock)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            response.close()
            raise Side.SOURCE.fail(
                "rejected", f"{self._client.host} compresses what was asked as is."
            )
        return response

    def _check_answer(self, response: BaseHTTPResponse, offset: int, validator: str | None) -> None:
        """A server that ignores what was asked must not make a file of two halves."""
        host = self._client.host
        now = _strong_validator(response)
        if response.status == 412 or (validator and now and now != validator):
            raise Side.SOURCE.fail("changed", f"The source at {host} changed while it was read.")
        if offset == 0:
            if response.status != 200:
                raise Side.SOURCE.fail(
                    "rejected", f"{host} answered a part when asked for the whole."
                )
            return
        if response.status != 206:
            raise Side.SOURCE.fail("unreachable", f"{host} does not go on where it stopped.")
        start, _, _ = self._content_range(response)
        if start != offset:
            raise Side.SOURCE.fail("rejected", f"{host} answered another part than asked for.")

    def _content_range(self, response: BaseHTTPResponse) -> tuple[int, int, int | None]:
        match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if match is None:
            raise Side.SOURCE.fail(
                "rejected", f"{self._client.host} sent a part without its place."
            )
        start, end, total = match.groups()
        return int(start), int(end), None if total == "*" else int(total)

    def _chunks(self, response: BaseHTTPResponse) -> Iterator[bytes]:
        try:
            yield from response.stream(CHUNK_BYTES, decode_content=False)
        except HTTPError as error:
            message = f"{self._client.host} closed the connection before the end."
            raise Side.SOURCE.fail("truncated", message) from error


def _strong_validator(response: BaseHTTPResponse) -> str | None:
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else None


def _length(response: BaseHTTPResponse) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


class HttpDestinationConnector:
    def __init__(self, destination: HttpDestination, access: Access) -> None:
        self._client = _Client(Side.DESTINATION, destination.url, destination.headers, access)
        self._method = destination.method
        self._access = access

    def put(self, upload: Upload) -> Delivered:
        url = self._client.url
        if upload.name is not None:
            parts = urlsplit(url)
            url = urlunsplit(parts._replace(path=f"{parts.path.rpartition('/')[0]}/{upload.name}"))
        # A POST may do its work and lose its answer; only a PUT may be said twice.
        with_retries(
            lambda: self._put_once(upload, url),
            clock=self._access.clock,
            **({} if self._method == "PUT" else {"tries": 1}),
        )
        return Delivered(urlunsplit(urlsplit(url)._replace(query="")))

    def _put_once(self, upload: Upload, url: str) -> None:
        headers = {"Content-Type": upload.content_type, "Content-Length": str(upload.size_bytes)}
        self._access.before_publish()
        with upload.path.open("rb") as body:
            response = self._client.send(self._method, headers, url=url, body=body)
        if not 200 <= response.status < 300:
            raise self._client.refuse(response)
        try:
            response.read(ANSWER_BYTES)
        except HTTPError as error:
            message = f"{self._client.host} broke off its answer."
            raise Side.DESTINATION.fail("unreachable", message) from error
        finally:
            response.close()
