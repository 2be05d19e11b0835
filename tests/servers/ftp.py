"""FTP and explicit FTPS (pyftpdlib), with the misbehaviour of servers in the field."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.servers.tls import TlsFiles

with warnings.catch_warnings():
    # It stands on asyncore, which Python 3.11 still has and warns of; later it brings its own.
    warnings.simplefilter("ignore", DeprecationWarning)
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import DTPHandler, FTPHandler, TLS_DTPHandler, TLS_FTPHandler
    from pyftpdlib.ioloop import IOLoop
    from pyftpdlib.servers import FTPServer

USER = "encoder"
PASSWORD = "only-for-tests"
NOTICE_STOP_S = 0.02
DRIP_S = 0.01
DROP_BYTES = 1024

# Without a handler of its own the library configures the root logger of the test process.
logging.getLogger("pyftpdlib").addHandler(logging.NullHandler())


@dataclass(slots=True)
class FtpFaults:
    """Switches of one server; set them during a test."""

    refuse_logins: int = 0
    """Answer this many logins with 421, as a server that is full does."""
    final_reply: Literal["sent", "silent", "hang_up"] = "sent"
    """What follows a finished transfer: 226, nothing (a firewall forgot the control connection), or
    the end of the control connection."""
    refuse_rename: bool = False
    names_address: str | None = None
    """Name this address in answers to PASV, as a server that sends its clients elsewhere."""
    rest: Literal["works", "ignored", "refused"] = "works"
    """What becomes of a REST: taken and not heeded, or 502."""
    size_off_by: int = 0
    """How much more than there is an answer to SIZE names."""
    cut_after_bytes: int | None = None
    """Close the data connection there, in either direction."""
    stall_after_bytes: int | None = None
    """Move nothing more from there on, in either direction, with all connections open."""
    drips: bool = False
    """Take uploads a KiB at a time, a hundred times a second."""
    cut_once: bool = False
    cut_reply: str = "426 Connection closed; transfer aborted."
    """What the server says then; "226 Transfer complete." is the lie of some."""


@dataclass(frozen=True, slots=True)
class FtpServer:
    """A running server, and the request fields that name a place on it."""

    port: int
    folder: Path
    tls: TlsFiles | None = None
    host: str = "127.0.0.1"
    user: str = USER
    password: str = PASSWORD
    faults: FtpFaults = field(default_factory=FtpFaults)
    #: Every command of every client, as it came, without the password.
    commands: list[str] = field(default_factory=list)
    #: Data channels that the loop does not look at any more.
    stalled: list[Any] = field(default_factory=list)

    def fields(self, path: str, **more: Any) -> dict[str, Any]:
        """A source or destination of the contract."""
        return {
            "kind": "ftp",
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "path": path,
            "tls": self.tls is not None,
            **more,
        }


@contextmanager
def ftp_server(
    folder: Path, *, tls: TlsFiles | None = None, host: str = "127.0.0.1"
) -> Iterator[FtpServer]:
    """Serve `folder`, as long as the block. With `tls` nothing works before AUTH TLS and PROT P."""
    loop = IOLoop()
    handler, server = _handler_and_server(loop, folder, tls, host)
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            loop.loop(NOTICE_STOP_S, blocking=False)
        for channel in handler.known.stalled:
            channel.close()
        server.close_all()
        loop.close()

    thread = threading.Thread(target=run, name="FtpServer")
    thread.start()
    try:
        yield handler.known
    finally:
        stop.set()
        thread.join()


def _handler_and_server(
    loop: Any, folder: Path, tls: TlsFiles | None, host: str
) -> tuple[Any, Any]:
    """A handler class of its own per server: the library keeps settings on the class."""
    authorizer = DummyAuthorizer()
    authorizer.add_user(USER, PASSWORD, str(folder), perm="elradfmwMT")
    attributes: dict[str, Any] = {
        "authorizer": authorizer,
        "use_sendfile": False,  # it would go round `send`, and so round the cut
        "auth_failed_timeout": 0,  # 3 s by default, to slow guessing down
    }
    if tls is None:
        attributes["dtp_handler"] = type("Data", (_FaultyData, DTPHandler), {})
        handler: Any = type("Control", (_FaultyControl, FTPHandler), attributes)
    else:
        attributes["dtp_handler"] = type("Data", (_FaultyData, TLS_DTPHandler), {})
        attributes |= {
            "certfile": str(tls.server),
            "tls_control_required": True,
            "tls_data_required": True,
        }
        handler = type("Control", (_FaultyControl, TLS_FTPHandler), attributes)
    server = FTPServer((host, 0), handler, ioloop=loop)
    handler.known = FtpServer(server.address[1], folder, tls, host)
    return handler, server


class _FaultyControl:
    """Mixed into a handler of the library, which is untyped: hence the Any."""

    known: FtpServer
    masquerade_address: str | None
    respond: Any
    close_when_done: Any

    def pre_process_command(self, line: str, cmd: str, arg: str) -> None:
        self.known.commands.append("PASS" if cmd == "PASS" else line)
        parent: Any = super()
        parent.pre_process_command(line, cmd, arg)

    def ftp_PASS(self, line: str) -> None:
        faults = self.known.faults
        if faults.refuse_logins > 0:
            faults.refuse_logins -= 1
            self.respond("421 Too many connections, try again later.")
            self.close_when_done()
            return
        parent: Any = super()
        parent.ftp_PASS(line)

    def ftp_REST(self, line: str) -> None:
        rest = self.known.faults.rest
        parent: Any = super()
        if rest == "works":
            parent.ftp_REST(line)
        elif rest == "ignored":
            self.respond(f"350 Restarting at position {line}.")
        else:
            self.respond("502 Command not implemented.")

    def ftp_SIZE(self, path: str) -> None:
        off_by = self.known.faults.size_off_by
        parent: Any = super()
        if off_by and Path(path).is_file():
            self.respond(f"213 {Path(path).stat().st_size + off_by}")
        else:
            parent.ftp_SIZE(path)

    def _make_epasv(self, extmode: bool = False) -> None:
        self.masquerade_address = self.known.faults.names_address
        parent: Any = super()
        parent._make_epasv(extmode)

    def ftp_RNTO(self, path: str) -> Any:
        if self.known.faults.refuse_rename:
            self.respond("553 Rename refused.")
            return None
        parent: Any = super()
        return parent.ftp_RNTO(path)


class _FaultyData:
    """Mixed into a data channel of the library, which is untyped: hence the Any."""

    cmd_channel: Any
    transfer_finished: bool
    tot_bytes_sent: int
    tot_bytes_received: int
    _closed: bool
    _resp: Any

    def send(self, data: bytes) -> int:
        limit = self.cmd_channel.known.faults.cut_after_bytes
        parent: Any = super()
        if self._stalls(self.tot_bytes_sent):
            return 0
        if limit is None:
            sent: int = parent.send(data)
            return sent
        sent = parent.send(data[: max(0, limit - self.tot_bytes_sent)])
        if self.tot_bytes_sent >= limit:
            self._cut()
        return sent

    def recv(self, buffer_size: int) -> bytes:
        limit = self.cmd_channel.known.faults.cut_after_bytes
        parent: Any = super()
        self._stalls(self.tot_bytes_received)
        if self.cmd_channel.known.faults.drips:
            threading.Event().wait(DRIP_S)
            buffer_size = DROP_BYTES
        data: bytes = parent.recv(buffer_size)
        if limit is None or self.tot_bytes_received + len(data) < limit:
            return data
        kept = data[: limit - self.tot_bytes_received]
        file: Any = self.__dict__["file_obj"]
        file.write(kept)
        self._cut()
        return b""

    def close(self) -> None:
        faults = self.cmd_channel.known.faults
        done = self.transfer_finished
        if done and faults.final_reply != "sent":
            self._resp = ()
        parent: Any = super()
        parent.close()
        if done and faults.final_reply == "hang_up" and self._closed:
            self.cmd_channel.close()

    def _stalls(self, moved: int) -> bool:
        limit = self.cmd_channel.known.faults.stall_after_bytes
        if limit is None or moved < limit:
            return False
        loop: Any = self.__dict__["ioloop"]
        loop.unregister(self.__dict__["_fileno"])
        self.cmd_channel.known.stalled.append(self)
        return True

    def _cut(self) -> None:
        faults = self.cmd_channel.known.faults
        if faults.cut_once:
            faults.cut_after_bytes = None
        if not self._closed:
            self._resp = (self.cmd_channel.known.faults.cut_reply, logging.debug)
            self.close()
