"""`encoder keys`: make, list and revoke API keys."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from encoder_cli.processes import opened_store
from encoder_db import keys
from encoder_db.rewrap import Rewrapped, rewrap


def make_key(*, name: str, owner: str, scopes: list[str]) -> str:
    with opened_store() as store:
        return store.run(lambda tx: keys.create_key(tx, name=name, owner=owner, scopes=scopes))


def print_keys(*, as_json: bool) -> None:
    with opened_store() as store, store.read() as tx:
        rows = keys.list_keys(tx)
    if as_json:
        print(json.dumps([row.to_json() for row in rows]))
        return
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("key", "name", "owner", "scopes", "last used", "state"):
        table.add_column(column)
    for row in rows:
        used = row.last_used_at.strftime("%Y-%m-%d %H:%M") if row.last_used_at else "never"
        state = "revoked" if row.revoked_at else "live"
        table.add_row(row.prefix, row.name, row.owner, " ".join(row.scopes), used, state)
    Console(highlight=False).print(table)


def rewrap_secrets(*, forget_lost: bool) -> Rewrapped:
    with opened_store(keys_may_be_lost=True) as store:
        return rewrap(store, forget_lost=forget_lost)


def revoke(prefix: str) -> bool:
    with opened_store() as store:
        return store.run(lambda tx: keys.revoke_key(tx, prefix))
