"""FTP and FTPS: binary, passive, through the checked dialler; uploads under another name."""

from __future__ import annotations

import ftplib
import re
import secrets
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from encoder_core.egress import BLOCK_BYTES, Dialler
from encoder_core.errors import JobError
from encoder_core.specs import FtpDestination, FtpLocation, FtpSource
from encoder_core.storage.base import Access, Delivered, Reading, SourceStat, Upload
from encoder_core.storage.failing import Side, with_retries
from encoder_core.storage.files import beside

CHUNK_BYTES: Final = 1024 * 1024
FTP_PORT: Final = 21
IMPLICIT_TLS_PORT: Final = 990  # where TLS begins before the first word
GOOD_BYE_S: Final = 5.0
KEEP_ALIVE_S: Final = 60


class CheckedFtp(ftplib.FTP_TLS):
    """
    An FTP client whose every connection comes from the dialler.

    The data connection goes to the host that the control connection reached, whatever address the
    server names: an address in a PASV answer is how a server sends its clients elsewhere.
    """

    def __init__(
        self, dialler: Dialler, *, connect_timeout_s: float, read_timeout_s: float
    ) -> None:
        super().__init__(context=ssl.create_default_context(), encoding="utf-8")
        self._dialler = dialler
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._secured = False

    def dial(self, host: str, port: int, *, implicit_tls: bool) -> None:
        self.host, self.port = host, port
        connection = self._dial(host, port)
        # It is silent while a file is under way, and firewalls forget who is silent.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEP_ALIVE_S)
        if implicit_tls:
            connection = self.context.wrap_socket(connection, server_hostname=host)
        self.sock = connection
        self.af = connection.family
        self.file = connection.makefile("r", encoding=self.encoding, newline="\r\n")
        self.welcome = self.getresp()

    def protect(self) -> None:
        """Ask for TLS on the data connections; the control connection already has it."""
        self.prot_p()
        self._secured = True

    def ntransfercmd(
        self, cmd: str, rest: int | str | None = None
    ) -> tuple[socket.socket, int | None]:
        assert self.sock is not None, "dialled before"
        peer = self.sock.getpeername()[0]
        _, port = self.makepasv()
        connection = self._dial(peer, port)
        try:
            if rest is not None:
                self.sendcmd(f"REST {rest}")
            answer = self.sendcmd(cmd)
            if answer.startswith("2"):
                answer = self.getresp()
            if not answer.startswith("1"):
                raise ftplib.error_reply(answer)
            if self._secured:
                session = getattr(self.sock, "session", None)
                # Many servers want the data connection to resume the control connection's session.
                connection = self.context.wrap_socket(
                    connection, server_hostname=self.host, session=session
                )
        except BaseException:
            connection.close()
            raise
        size = ftplib.parse150(answer) if answer.startswith("150") else None
        return connection, size

    def _dial(self, host: str, port: int) -> socket.socket:
        connection = self._dialler.connect(host, port, timeout_s=self._connect_timeout_s)
        connection.settimeout(self._read_timeout_s)
        return connection


@dataclass(frozen=True, slots=True)
class _Place:
    """A location, whichever way it was written."""

    host: str
    port: int
    user: str
    password: str
    path: str
    tls: bool

    @property
    def implicit_tls(self) -> bool:
        return self.tls and self.port == IMPLICIT_TLS_PORT

    def url(self, path: str) -> str:
        port = "" if self.port == FTP_PORT else f":{self.port}"
        return f"{'ftps' if self.tls else 'ftp'}://{self.host}{port}/{quote(path.lstrip('/'))}"


def _place(location: FtpLocation, side: Side) -> _Place:
    if location.url is None:
        assert location.host is not None
        assert location.path is not None
        tls = bool(location.tls)
        user = location.user.get_secret_value() if location.user else "anonymous"
        password = location.password.get_secret_value() if location.password else ""
        host, path = location.host.strip("[]"), location.path
    else:
        parts = urlsplit(location.url.get_secret_value())
        tls = parts.scheme.lower() == "ftps" if location.tls is None else location.tls
        user, password = unquote(parts.username or "anonymous"), unquote(parts.password or "")
        host, path = parts.hostname or "", unquote(parts.path)
        location = location.model_copy(update={"port": parts.port})
    if ".." in path.split("/") or not path.strip("/"):
        raise side.fail("rejected", "The path of the FTP URL names no file, or leads upwards.")
    if re.search(r"[\x00-\x1f\x7f]", path + user + password):
        raise side.fail("rejected", "The FTP path or user has control characters.")
    return _Place(host, location.port or FTP_PORT, user, password, path, tls)


class _Session:
    """Opens connections to one place and says in our words what goes wrong there."""

    def __init__(self, side: Side, location: FtpLocation, access: Access) -> None:
        self.side = side
        self.place = _place(location, side)
        self.access = access

    @contextmanager
    def connected(self) -> Iterator[CheckedFtp]:
        """A client that is logged in, in binary mode. Errors inside are translated too."""
        client = CheckedFtp(
            self.access.dialler,
            connect_timeout_s=self.access.connect_timeout_s,
            read_timeout_s=self.access.read_timeout_s,
        )
        try:
            with self.translated():
                self._log_in(client)
                yield client
        finally:
            self._part(client)

    def _log_in(self, client: CheckedFtp) -> None:
        place = self.place
        client.dial(place.host, place.port, implicit_tls=place.implicit_tls)
        if place.tls and not place.implicit_tls:
            client.auth()
        ftplib.FTP.login(client, place.user, place.password)
        if place.tls:
            client.protect()
        client.voidcmd("TYPE I")

    @staticmethod
    def _part(client: CheckedFtp) -> None:
        with suppress(*ftplib.all_errors):
            if client.sock is not None:
                client.sock.settimeout(GOOD_BYE_S)
                client.quit()
        client.close()

    @contextmanager
    def translated(self) -> Iterator[None]:
        host, side = self.place.host, self.side
        try:
            yield
        except ssl.SSLCertVerificationError as error:
            raise side.fail("rejected", f"The TLS certificate of {host} is not valid.") from error
        except (ftplib.error_temp, ftplib.error_perm) as error:
            raise self._failure_of_reply(str(error)[:3]) from error
        except (OSError, EOFError, ftplib.Error, ValueError) as error:
            what = type(error).__name__
            raise side.fail("unreachable", f"{host} did not answer ({what}).") from error

    def _failure_of_reply(self, code: str) -> JobError:
        """Only the number: the text of a reply may repeat what it was asked."""
        host, side = self.place.host, self.side
        said = f"{host} answered {code}"
        if code in ("530", "532", "331", "332"):
            return side.fail("denied", f"{said}: the login was refused.")
        if code in ("552", "452") and side is Side.DESTINATION:
            return side.fail("full", f"{said}: there is no room.")
        if code == "550":
            what = "not_found" if side is Side.SOURCE else "denied"
            return side.fail(what, f"{said}: there is no such file, or it is not allowed.")
        if code.startswith("4"):
            return side.fail("unreachable", f"{said} for the {side.value}.")
        return side.fail("rejected", f"{said} for the {side.value}.")


class FtpSourceConnector:
    parallel = False  # each part would cost a login, and servers count those

    def __init__(self, source: FtpSource, access: Access) -> None:
        self.local_path = None
        self._session = _Session(Side.SOURCE, source, access)

    def open(
        self, first: int = 0, end: int | None = None, *, validator: str | None = None
    ) -> Reading:
        session, exits = self._session, ExitStack()
        with exits:
            client = exits.enter_context(session.connected())
            stat = self._stat(client)
            if validator is not None and stat.validator != validator:
                raise Side.SOURCE.fail("changed", f"The source at {session.place.host} changed.")
            data = client.transfercmd(f"RETR {session.place.path}", rest=first or None)
            exits.callback(data.close)
            still_open = exits.pop_all()
        return Reading(stat, self._chunks(client, data, stat, first, end), still_open.close)

    def _stat(self, client: CheckedFtp) -> SourceStat:
        """Size and time of change together stand for the bytes: FTP has nothing stronger."""
        path = self._session.place.path
        size = _ask_size(client, path, must_exist=True)
        changed = _ask(client, f"MDTM {path}")
        validator = f"{size}-{changed}" if size is not None and changed else None
        ranges = validator is not None and _can_restart(client)
        return SourceStat(size, validator, ranges=ranges)

    def _chunks(
        self,
        client: CheckedFtp,
        data: socket.socket,
        stat: SourceStat,
        done: int,
        end: int | None,
    ) -> Iterator[bytes]:
        last = stat.size_bytes if end is None or end == stat.size_bytes else None
        try:
            while end is None or done < end:
                most = CHUNK_BYTES if end is None else min(CHUNK_BYTES, end - done)
                chunk = data.recv(most)
                if not chunk:
                    break
                done += len(chunk)
                if last is not None and done >= last:
                    self._check_end(data, more=done > last)
                yield chunk
        except OSError as error:
            raise self._truncated() from error
        if end is not None and done >= end:
            return
        if stat.size_bytes is not None and done < stat.size_bytes:
            raise self._truncated()
        data.close()
        try:
            client.voidresp()
        except ftplib.all_errors as error:
            # The closing word is often lost on long transfers; the length says as much.
            if stat.size_bytes is None or done != stat.size_bytes:
                raise self._truncated() from error

    def _check_end(self, data: socket.socket, *, more: bool) -> None:
        """
        Raises when something follows the last byte: a file that grows meanwhile, or one that was
        sent from its beginning though its rest was asked for.
        """
        with suppress(OSError):  # a server that does not hang up: the length says as much
            data.settimeout(GOOD_BYE_S)
            more = more or data.recv(1) != b""
        if more:
            message = f"{self._session.place.host} sends more than the size that it told."
            raise Side.SOURCE.fail("changed", message)

    def _truncated(self) -> JobError:
        message = f"{self._session.place.host} closed the connection before the end."
        return Side.SOURCE.fail("truncated", message)


class FtpDestinationConnector:
    at_once = 1  # each file is a login, and servers count those

    def __init__(self, destination: FtpDestination, access: Access) -> None:
        self._session = _Session(Side.DESTINATION, destination, access)

    def put(self, upload: Upload) -> Delivered:
        place = self._session.place
        path = place.path if upload.name is None else beside(place.path, upload.name)
        with_retries(lambda: self._put_once(upload, path), clock=self._session.access.clock)
        return Delivered(place.url(path))

    def _put_once(self, upload: Upload, path: str) -> None:
        """Stored under a name that nobody looks for, checked, then renamed."""
        folder, _, name = path.rpartition("/")
        part = beside(path, f".{name[:150]}.{secrets.token_hex(6)}.part")
        with self._session.connected() as client:
            _make_folders(client, folder)
            with self._forgotten_when_it_fails(client, part):
                self._store(client, upload, part)
                if _is_confirmed(client):
                    self._publish(client, upload, part, path, confirmed=True)
                    return
        # The closing word of a long transfer is often lost, with its connection: look again.
        with (
            self._session.connected() as client,
            self._forgotten_when_it_fails(client, part),
        ):
            self._publish(client, upload, part, path, confirmed=False)

    @contextmanager
    def _forgotten_when_it_fails(self, client: CheckedFtp, part: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            try:
                client.delete(part)
            except ftplib.error_perm:
                raise  # it is not there
            except ftplib.all_errors:
                with suppress(JobError), self._session.connected() as other:
                    other.delete(part)
            raise

    def _store(self, client: CheckedFtp, upload: Upload, part: str) -> None:
        data = client.transfercmd(f"STOR {part}")
        try:
            with upload.path.open("rb") as file:
                while chunk := file.read(BLOCK_BYTES):
                    data.sendall(chunk)
            if isinstance(data, ssl.SSLSocket):
                # Without TLS's own good-bye, strict servers take the file for cut off.
                with suppress(OSError):
                    data.unwrap()
        finally:
            data.close()

    def _publish(
        self, client: CheckedFtp, upload: Upload, part: str, path: str, *, confirmed: bool
    ) -> None:
        size = _ask_size(client, part)
        if size != upload.size_bytes and not (confirmed and size is None):
            host = self._session.place.host
            raise Side.DESTINATION.fail("unreachable", f"{host} did not confirm the whole file.")
        self._session.access.before_publish()
        _rename(client, part, path)


def _is_confirmed(client: CheckedFtp) -> bool:
    """Whether the server says that it has all. Raises ftplib's error when it says otherwise."""
    try:
        client.voidresp()
    except (ftplib.error_temp, ftplib.error_perm):
        raise
    except ftplib.all_errors:
        return False
    return True


def _rename(client: CheckedFtp, part: str, path: str) -> None:
    """Some servers refuse to rename onto a file that exists; there it goes first."""
    try:
        client.rename(part, path)
    except ftplib.error_perm:
        if _ask_size(client, path) is None:
            raise
        client.delete(path)
        client.rename(part, path)


def _make_folders(client: CheckedFtp, folder: str) -> None:
    """Each level; one that exists answers with an error that the upload would repeat if real."""
    made = ""
    for level in [part for part in folder.split("/") if part]:
        made = f"{made}/{level}" if made or folder.startswith("/") else level
        with suppress(ftplib.error_perm):
            client.mkd(made)


def _ask(client: CheckedFtp, command: str, *, must_exist: bool = False) -> str | None:
    """The argument of a 213 answer; None from servers that do not know the command."""
    try:
        answer = client.sendcmd(command)
    except ftplib.error_perm as error:
        if must_exist and str(error).startswith("550"):
            raise
        return None
    return answer[4:].strip() if answer.startswith("213") else None


def _can_restart(client: CheckedFtp) -> bool:
    try:
        return client.sendcmd("REST 0").startswith("350")
    except ftplib.error_perm:
        return False


def _ask_size(client: CheckedFtp, path: str, *, must_exist: bool = False) -> int | None:
    text = _ask(client, f"SIZE {path}", must_exist=must_exist)
    return int(text) if text and text.isdecimal() else None
