"""The bytes of an inline source, fetched from the API with the attempt's token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from urllib3 import BaseHTTPResponse, PoolManager
from urllib3.exceptions import HTTPError

from encoder_core.clock import Clock
from encoder_core.errors import JobError
from encoder_core.storage.base import Reading, SourceStat
from encoder_worker.channels import FIRST_PAUSE_S, GONE, PATIENCE_S, TIMEOUT_S

CHUNK_BYTES: Final = 1024 * 1024
LONGEST_PAUSE_S: Final = 8.0


class InlineFromApi:
    """
    A source connector. The address is the installation's own, so it is not dialled through the
    checked dialler, as reports are not: the API is in a private network.
    """

    local_path: Path | None = None
    parallel = False

    def __init__(self, url: str, token: SecretStr, *, size_bytes: int | None, clock: Clock) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token.get_secret_value()}"}
        self._size_bytes = size_bytes
        self._clock = clock
        self._pool = PoolManager(retries=False, timeout=TIMEOUT_S)

    def open(
        self, first: int = 0, end: int | None = None, *, validator: str | None = None
    ) -> Reading:
        """Always the whole: the API serves no parts, and what is read says so."""
        stat = SourceStat(self._size_bytes, None, ranges=False)
        response = self._get()
        return Reading(stat, self._chunks(response), response.close)

    def _chunks(self, response: BaseHTTPResponse) -> Iterator[bytes]:
        try:
            yield from response.stream(CHUNK_BYTES, decode_content=False)
        except HTTPError as error:
            raise JobError("source_truncated", "The API broke off the inline source.") from error

    def _get(self) -> BaseHTTPResponse:
        """Patient with an API that restarts, as reports are."""
        until = self._clock.monotonic() + PATIENCE_S
        pause_s = FIRST_PAUSE_S
        while True:
            response = self._try()
            if response is not None:
                return response
            if self._clock.monotonic() + pause_s > until:
                raise JobError("store_unavailable", "The API did not hand out the inline source.")
            self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _try(self) -> BaseHTTPResponse | None:
        """None: it may do better soon."""
        try:
            response = self._pool.urlopen(
                "GET", self._url, headers=self._headers, redirect=False, preload_content=False
            )
        except HTTPError:
            return None
        if response.status == 200:
            return response
        response.close()
        if response.status in GONE:
            # Or the attempt is not current: then nobody takes this report in either.
            raise JobError("source_not_found", "The bytes of the inline source are gone.")
        return None
