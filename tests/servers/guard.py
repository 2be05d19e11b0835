"""
Run one command until standard input closes.

A server started this way ends with the process that holds the other end of the pipe, however that
one ends: a test run killed with SIGKILL leaves no mysqld behind. Started as a script, so it uses
nothing but the standard library.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

GRACE_S = 15.0  # mysqld takes 1 to 2 s to flush; a server that needs longer hangs


def main(argv: list[str]) -> int:
    # Ctrl-C reaches the whole group: the server must outlive it until the tests have cleaned up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_end_with_input, args=(child,), daemon=True).start()
    return child.wait()


def _end_with_input(child: subprocess.Popen[bytes]) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    child.terminate()
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
