"""
Clean up after one cluster when its owner closes the pipe, or dies in whatever way.

It reads the ids of the servers' processes from standard input, kills them at the end of the input
and removes the traces. So there is one way a cluster ends, and SIGKILL of a test run is that way.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path

from tests.harness.addresses import Addresses
from tests.harness.traces import GONE_S, Traces

LEAVE = "leave"


def main(folder: str, number: str = "") -> int:
    servers = []
    for line in sys.stdin:
        if line.strip() == LEAVE:
            return 0
        # Held from the moment they are known to live: an id alone may become somebody else's.
        with suppress(ProcessLookupError):
            servers.append(os.pidfd_open(int(line)))
    for server in servers:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(server, signal.SIGKILL)
    for server in servers:
        select.select([server], [], [], GONE_S)
    Traces(Path(folder), Addresses(int(number)) if number else None).remove()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
