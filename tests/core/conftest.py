"""How property tests run here."""

from __future__ import annotations

from hypothesis import settings

# A machine that is busy with other test processes is slow now and then; that is no finding.
settings.register_profile("encoder", deadline=None)
settings.load_profile("encoder")
