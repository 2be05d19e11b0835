"""
Every job has a motto; those that exist take their owner's name.

Revision ID: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from encoder_db import types as t

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    motto = sa.Column("motto", t.Exact(64), nullable=False, server_default="none")
    op.add_column("jobs", motto)
    op.create_index("ix_jobs_motto", "jobs", ["motto"])
    op.execute("UPDATE jobs SET motto = owner")
