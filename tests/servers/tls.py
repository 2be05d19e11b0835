"""A throw-away certificate authority for servers on loopback."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

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


UNACCEPTABLE: Final = {
    "has expired": "certificate has expired",
    "is not valid yet": "certificate is not yet valid",
    "is signed by itself": "self-signed certificate",
    "is of an unknown authority": "unable to get local issuer certificate",
    "is of another name": "certificate is not valid for",
}
"""What may be wrong with a server's certificate, and what OpenSSL says of it."""


def bad_server(why: str, authority: trustme.CA, name: str) -> ssl.SSLContext:
    """A server called `name` whose certificate is wrong in this way for who trusts `authority`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    match why:
        case "has expired":
            begin, end = datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 2, 1, tzinfo=UTC)
            issued = authority.issue_cert(name, not_before=begin, not_after=end)
        case "is not valid yet":
            begin, end = datetime(2199, 1, 1, tzinfo=UTC), datetime(2199, 2, 1, tzinfo=UTC)
            issued = authority.issue_cert(name, not_before=begin, not_after=end)
        case "is signed by itself":
            own = trustme.CA()
            with NamedTemporaryFile() as file:
                file.write(own.private_key_pem.bytes() + own.cert_pem.bytes())
                file.flush()
                context.load_cert_chain(file.name)
            return context
        case "is of an unknown authority":
            issued = trustme.CA().issue_cert(name)
        case "is of another name":
            issued = authority.issue_cert("other.example")
        case _:
            raise ValueError(why)
    issued.configure_cert(context)
    return context
