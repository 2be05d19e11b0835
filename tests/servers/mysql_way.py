"""
A way to a real MySQL that cuts, swallows and stalls at exactly the statement it is told to.

It reads the packets of its clients, to know where a statement begins, and passes bytes on as they
came. Faults are met in order, each `times` times.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, Self

from tests.servers.database import Database

QUERY = 0x03
CLIENT_SSL_HIGH = 0x08  # bit 11 of the capabilities
HEADER_BYTES = 4
NOTICE_STOP_S = 0.02
ANSWER_S = 60.0

How = Literal["cut before", "cut within", "answer lost", "answer cut", "silent", "refused"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to a statement that has `at` in it."""

    at: str
    how: How
    """
    `cut before`: the server never sees it. `cut within`: it gets the first bytes. `answer lost`: it
    does it, and the client is cut off. `answer cut`: the client gets the first bytes of the answer.
    `silent`: it does it, and nothing more passes, in either direction. `refused`: the client is
    told the error `code`, and the server sees nothing.
    """
    times: int = 1
    after: str = ""
    """Only where the same connection has said this before."""
    code: int = 0
    bytes_kept: int = 3


class MysqlWay:
    """A port of loopback that leads to the database, as long as the `with` block."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._faults: list[Fault] = []
        self._lock = threading.Condition()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._silent: list[socket.socket] = []
        self.met: list[Fault] = []

    @property
    def url(self) -> str:
        return replace(self._database, host="127.0.0.1", port=self._port).url

    def expect(self, *faults: Fault) -> None:
        with self._lock:
            self._faults = [fault for fault in faults for _ in range(fault.times)]
            self.met = []

    def wait_until_met(self, count: int = 1) -> None:
        with self._lock:
            assert self._lock.wait_for(lambda: len(self.met) >= count, ANSWER_S), self._faults

    def end_silence(self) -> None:
        """Cut off those that wait for an answer that never comes."""
        with self._lock:
            for client in self._silent:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)

    def meet(self, statement: bytes, said: list[str]) -> Fault | None:
        """`said` is what the connection has said before, and from now on also this."""
        text = statement.decode(errors="replace")
        earlier = "\n".join(said)
        said.append(text)
        with self._lock:
            for fault in self._faults:
                if fault.at in text and fault.after in earlier:
                    self._faults.remove(fault)
                    self.met.append(fault)
                    self._lock.notify_all()
                    return fault
        return None

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(NOTICE_STOP_S)
        self._port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name="MysqlWay")
        self._acceptor.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._acceptor.join()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            thread = threading.Thread(target=self._pass_on, args=(client,), name="MysqlWay-pipe")
            thread.start()
            self._threads.append(thread)

    def _pass_on(self, client: socket.socket) -> None:
        address = (self._database.host, self._database.port)
        with client, socket.create_connection(address) as server, contextlib.suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(_without_tls(server.recv(65536)))
            said: list[str] = []
            while not self._closing.is_set():
                ready, _, _ = select.select([client, server], [], [], NOTICE_STOP_S)
                if server in ready:
                    answer = server.recv(65536)
                    if not answer:
                        return
                    client.sendall(answer)
                if client in ready and not self._ask(client, server, said):
                    return

    def _ask(self, client: socket.socket, server: socket.socket, said: list[str]) -> bool:
        """Pass one packet of the client on. False: this connection has ended."""
        packet = _read_packet(client)
        if not packet:
            return False
        is_query = packet[3] == 0 and packet[HEADER_BYTES] == QUERY
        fault = self.meet(packet[HEADER_BYTES + 1 :], said) if is_query else None
        if fault is None:
            server.sendall(packet)
            return True
        if fault.how == "refused":
            client.sendall(_error(fault.code))
            return True
        if fault.how == "cut within":
            server.sendall(packet[: fault.bytes_kept])
        elif fault.how != "cut before":
            server.sendall(packet)
            answer = server.recv(65536)
            if fault.how == "answer cut":
                client.sendall(answer[: fault.bytes_kept])
            elif fault.how == "silent":
                self._keep_silent(client)
        return False

    def _keep_silent(self, client: socket.socket) -> None:
        """Until the client gives up, or the test ends it."""
        with self._lock:
            self._silent.append(client)
        while not self._closing.is_set():
            if select.select([client], [], [], NOTICE_STOP_S)[0]:
                return


def _without_tls(greeting: bytes) -> bytes:
    """The server's first packet, as of one that offers no TLS: inside it, nothing could be read."""
    version_ends = greeting.index(0, HEADER_BYTES + 1)
    # Behind the version: thread (4 bytes), part of the challenge (8), filler (1), capabilities (2).
    capabilities = version_ends + 1 + 4 + 8 + 1
    changed = bytearray(greeting)
    changed[capabilities + 1] &= ~CLIENT_SSL_HIGH & 0xFF
    return bytes(changed)


def _read_packet(client: socket.socket) -> bytes:
    """Header and payload; nothing when the client has hung up."""
    packet, wanted = b"", HEADER_BYTES
    while len(packet) < wanted:
        more = client.recv(wanted - len(packet))
        if not more:
            return b""
        packet += more
        if len(packet) == HEADER_BYTES:
            wanted = HEADER_BYTES + int.from_bytes(packet[:3], "little")
    return packet


def _error(code: int) -> bytes:
    """What a server says that refuses a statement: the first packet of its answer."""
    payload = b"\xff" + code.to_bytes(2, "little") + b"#HY000" + b"as the test told it"
    return len(payload).to_bytes(3, "little") + b"\x01" + payload
