"""A throw-away certificate authority for servers on loopback."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Certificates for `localhost` and 127.0.0.1."""

    #: What a client must trust, for example through SSL_CERT_FILE.
    authority: Path
    #: Key and certificate chain of the server, in one file.
    server: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server)
        return context


def make_certificates(folder: Path, *more: str) -> TlsFiles:
    """`more` are addresses besides those of loopback."""
    authority = trustme.CA()
    files = TlsFiles(folder / "authority.pem", folder / "server.pem")
    authority.cert_pem.write_to_path(files.authority)
    issued = authority.issue_cert("localhost", "127.0.0.1", *more)
    issued.private_key_and_cert_chain_pem.write_to_path(files.server)
    return files
