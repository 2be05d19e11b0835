"""The API alone on a database, in a process of its own: `python -m benchmarks.served URL`."""

from __future__ import annotations

import sys
import threading

from encoder_api.app import create_app
from encoder_api.server import ApiServer
from encoder_api.settings import ApiSettings
from encoder_core.logs import configure_logging
from encoder_db.migrations import migrate
from encoder_db.store import Store


def main() -> None:
    """Prints its address, and ends with its standard input. Neither sender nor runner beside it."""
    configure_logging()
    with Store.open(sys.argv[1]) as store:
        migrate(store)
        server = ApiServer(create_app(ApiSettings(port=0), store), host="127.0.0.1", port=0)

        def stop_with_input() -> None:
            sys.stdin.read()
            server.stop()

        threading.Thread(target=stop_with_input, daemon=True).start()
        server.run(ready=lambda: print(server.url, flush=True))


if __name__ == "__main__":
    main()
