"""The worker: one attempt of one job, from the source to the delivered outputs."""

from __future__ import annotations

import os

# pydantic looks through the metadata of every installed package for plugins, which nobody here has:
# a tenth of the time that a worker needs to start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
