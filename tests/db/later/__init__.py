"""A later version of the program: a migration more, and the tables as that would have them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import Column, Index, MetaData

from encoder_db import types as t
from encoder_db.migrations import OURS, Revisions
from encoder_db.tables import metadata

LATER: Final = Revisions(head="0002", folders=(*OURS.folders, Path(__file__).parent))


def later_tables() -> MetaData:
    later = MetaData()
    for table in metadata.sorted_tables:
        table.to_metadata(later)
    jobs = later.tables["jobs"]
    motto = Column("motto", t.Exact(64), nullable=False, server_default="none")
    jobs.append_column(motto)
    Index("ix_jobs_motto", motto)
    return later
