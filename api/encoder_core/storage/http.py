"""HTTP and HTTPS: a GET that can go on after a cut, and a PUT or POST with a known length."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import IO, Final
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from pydantic import SecretStr
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError, SSLError

from encoder_core.egress_http import CONTENT_RANGE, CheckedHttp, host_of, origin_of
from encoder_core.errors import JobError
from encoder_core.model import check_url
from encoder_core.specs import HttpDestination, HttpSource
from encoder_core.storage.base import Access, Delivered, Reading, SourceStat, Upload
from encoder_core.storage.failing import RangeIgnored, Side, failure_of_status, with_retries

CHUNK_BYTES: Final = 256 * 1024
MAX_REDIRECTS: Final = 5
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
REDIRECTS_WITH_BODY: Final = frozenset({307, 308})  # the others turn an upload into a GET
ANSWER_BYTES: Final = 65_536  # of an upload's answer; read so that the connection ends cleanly


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
    parallel = True

    def __init__(self, source: HttpSource, access: Access) -> None:
        self.local_path = None
        self._client = _Client(Side.SOURCE, source.url, source.headers, access)

    def open(
        self, first: int = 0, end: int | None = None, *, validator: str | None = None
    ) -> Reading:
        """With a GET always: signed URLs are often good for GET alone, and not for HEAD."""
        headers = {"Accept-Encoding": "identity"}
        if validator is not None:
            headers["If-Match"] = validator
        if first or end is not None:
            headers["Range"] = f"bytes={first}-{'' if end is None else end - 1}"
        response = self._client.send("GET", headers)
        try:
            return self._read_answer(response, first, validator)
        except BaseException:
            response.close()
            raise

    def _read_answer(
        self, response: BaseHTTPResponse, first: int, validator: str | None
    ) -> Reading:
        """A server that ignores what was asked must not make a file of two halves."""
        host = self._client.host
        now = _strong_validator(response)
        if response.status == 412 or (validator and now and now != validator):
            raise Side.SOURCE.fail("changed", f"The source at {host} changed while it was read.")
        if response.status == 416:
            if first:
                raise Side.SOURCE.fail("changed", f"The source at {host} has become shorter.")
            response.close()
            return Reading(SourceStat(0, now, ranges=False), iter(()))
        if response.status not in (200, 206):
            raise self._client.refuse(response)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise Side.SOURCE.fail("rejected", f"{host} compresses what was asked as is.")
        length = _length(response)
        if response.status == 200:
            if first:
                raise RangeIgnored(host)
            stat = SourceStat(length, now, ranges=False)
            return Reading(stat, self._chunks(response, length), response.close)
        start, last, total = self._content_range(response)
        if start != first:
            raise Side.SOURCE.fail("rejected", f"{host} answered another part than asked for.")
        if length is not None and length != last + 1 - start:
            raise Side.SOURCE.fail("rejected", f"{host} contradicts itself about a part's length.")
        stat = SourceStat(total, now, ranges=True)
        return Reading(stat, self._chunks(response, last + 1 - start), response.close)

    def _content_range(self, response: BaseHTTPResponse) -> tuple[int, int, int | None]:
        match = CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if match is None:
            raise Side.SOURCE.fail(
                "rejected", f"{self._client.host} sent a part without its place."
            )
        start, last, total = match.groups()
        return int(start), int(last), None if total == "*" else int(total)

    def _chunks(self, response: BaseHTTPResponse, length: int | None) -> Iterator[bytes]:
        done = 0
        try:
            for chunk in as_they_come(response):
                done += len(chunk)
                yield chunk
        except HTTPError as error:
            raise self._truncated() from error
        if length is not None and done < length:
            raise self._truncated()

    def _truncated(self) -> JobError:
        message = f"{self._client.host} closed the connection before the end."
        return Side.SOURCE.fail("truncated", message)


def as_they_come(response: BaseHTTPResponse) -> Iterator[bytes]:
    """The body's bytes as the network brings them, where it brings less than a chunk at a time."""
    if response.chunked:
        yield from response.stream(CHUNK_BYTES, decode_content=False)
        return
    while chunk := response.read1(CHUNK_BYTES, decode_content=False):
        yield chunk


def _strong_validator(response: BaseHTTPResponse) -> str | None:
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else None


def _length(response: BaseHTTPResponse) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


class HttpDestinationConnector:
    at_once = 4

    def __init__(self, destination: HttpDestination, access: Access) -> None:
        self._client = _Client(Side.DESTINATION, destination.url, destination.headers, access)
        self._method = destination.method
        self._access = access

    def put(self, upload: Upload) -> Delivered:
        url = self._client.url
        if upload.name is not None:
            parts = urlsplit(url)
            path = f"{parts.path.rpartition('/')[0]}/{quote(upload.name)}"
            url = urlunsplit(parts._replace(path=path))
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
