"""`encoder owners`: see who has jobs, and give an owner a larger share."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from encoder_cli.processes import opened_store
from encoder_db import owners


def print_owners(*, as_json: bool) -> None:
    with opened_store() as store, store.read() as tx:
        rows = owners.list_owners(tx)
    if as_json:
        print(json.dumps([row.to_json() for row in rows]))
        return
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("owner")
    for column in ("weight", "waiting", "running"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(row.owner, *map(str, (row.weight, row.waiting, row.running)))
    Console(highlight=False).print(table)


def set_weight(owner: str, weight: int) -> bool:
    """Whether the owner was known before."""
    with opened_store() as store:
        return store.run(lambda tx: owners.set_weight(tx, owner, weight))
