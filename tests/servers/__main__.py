"""Build what the test servers need, once per machine: `make setup` calls it before the tests."""

from __future__ import annotations

import time

from tests.servers import clips, mariadb, mysql, s3


def main() -> None:
    steps = {
        "MySQL 9": mysql.unpacked,
        "MariaDB": mariadb.initialised,
        "versitygw": s3.gateway,
        "clips": clips.all_clips,
    }
    for name, build in steps.items():
        started = time.monotonic()
        print(f"setup:   {name}", end="", flush=True)
        build()
        print(f" ({time.monotonic() - started:.1f} s)")


if __name__ == "__main__":
    main()
