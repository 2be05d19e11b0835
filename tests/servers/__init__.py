"""Real servers as throw-away processes: started on loopback, stopped by their process id."""

from __future__ import annotations
