"""Ask an API server questions: quicker than kubectl where there are many of them."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ANSWER_S = 30.0  # one that is not there refuses at once; a busy one takes its time
WATCH_S = 3600.0


class ApiClient:
    """Reads and writes as an administrator."""

    def __init__(self, server: str, authority: Path, certificate: Path, key: Path) -> None:
        self._server = server
        self._tls = ssl.create_default_context(cafile=str(authority))
        self._tls.load_cert_chain(certificate, key)

    def get(self, path: str) -> Any:
        """The object at `path`. Raises OSError (urllib's errors are such) when there is none."""
        return json.loads(self.read(path))

    def watch(self, path: str) -> Iterator[Any]:
        """What a watch tells, until the server ends it or whoever asks has heard enough."""
        opened = urllib.request.urlopen(self._server + path, context=self._tls, timeout=WATCH_S)
        with opened as stream:
            for line in stream:
                yield json.loads(line)

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
    ) -> tuple[int, Any]:
        """Status and answer, whatever they are."""
        request = urllib.request.Request(
            self._server + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": content_type},
        )
        try:
            with urllib.request.urlopen(request, context=self._tls, timeout=ANSWER_S) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _said(error.read())

    def read(self, path: str) -> bytes:
        opened = urllib.request.urlopen(self._server + path, context=self._tls, timeout=ANSWER_S)
        with opened as answer:
            body: bytes = answer.read()
        return body


def _said(answer: bytes) -> Any:
    """Most refusals are a Status; of a kind that it does not know, the server just says so."""
    try:
        return json.loads(answer)
    except ValueError:
        return {"message": answer.decode(errors="replace").strip()}
