"""`python -m encoder_worker`: the way in."""

from __future__ import annotations

import gc
import sys


def start() -> int:
    # What is imported stays: looking for garbage among it is a sixth of the worker's start, and
    # again at each later collection.
    gc.disable()
    from encoder_worker.main import main

    gc.freeze()
    gc.enable()
    return main()


if __name__ == "__main__":
    sys.exit(start())
