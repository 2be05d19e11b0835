"""Ask an API server questions: quicker than kubectl where a start-up polls fifty times."""

from __future__ import annotations

import json
import ssl
import urllib.request
from pathlib import Path
from typing import Any


class ApiClient:
    """Reads as an administrator."""

    def __init__(self, server: str, authority: Path, certificate: Path, key: Path) -> None:
        self._server = server
        self._tls = ssl.create_default_context(cafile=str(authority))
        self._tls.load_cert_chain(certificate, key)

    def get(self, path: str) -> Any:
        """The object at `path`. Raises OSError (urllib's errors are such) when there is none."""
        return json.loads(self.read(path))

    def read(self, path: str) -> bytes:
        opened = urllib.request.urlopen(self._server + path, context=self._tls, timeout=5)
        with opened as answer:
            body: bytes = answer.read()
        return body
