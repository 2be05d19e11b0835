"""`python -m encoder_operator`: settings, the watches of kopf, and the operator beside them."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import time
from contextlib import AsyncExitStack

import kopf
from aiohttp import web
from kopf._core.engines.peering import Identity  # the type of a public argument
from pydantic import ValidationError

from encoder_core.errors import ConfigurationError, EncoderError
from encoder_core.logs import configure_logging
from encoder_db.migrations import migrate
from encoder_db.settings import (
    DatabaseSettings,
    QueueSettings,
    SecretSettings,
    TransferSettings,
    wrong_settings,
)
from encoder_db.store import Store, open_store
from encoder_operator.budget import WriteBudget
from encoder_operator.handlers import register
from encoder_operator.health import PATIENCE, Echoes, build_app
from encoder_operator.kube import JOBS, PODS, POOLS, Kube, connect
from encoder_operator.metrics import Metrics
from encoder_operator.operator import Operator
from encoder_operator.settings import AmbientSettings, OperatorSettings

log = logging.getLogger("encoder.operator")

QUIET = ("kopf.objects", "kopf.activities", "aiohttp.access")  # a line for each event they see


async def run(store: Store, settings: OperatorSettings, queue: QueueSettings) -> None:
    """Until SIGTERM, or until one of the two halves fails: then the process ends, not limps."""
    stop, transfer = asyncio.Event(), TransferSettings()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    budget = WriteBudget(settings.writes_per_s, burst=settings.write_burst, now=time.monotonic)
    metrics = Metrics()
    echoes = Echoes(
        (kind.plural for kind in (JOBS, PODS, POOLS)),
        patience_s=settings.canary_s * PATIENCE,
        now=time.monotonic,
    )
    async with await connect() as api, AsyncExitStack() as stack:
        kube = Kube(
            api,
            namespace=settings.namespace,
            budget=budget,
            echoes=echoes,
            metrics=metrics,
            in_flight=settings.in_flight,
        )
        operator = Operator(
            store,
            kube,
            settings,
            queue,
            transfer,
            AmbientSettings().lend(buckets=transfer.s3_ambient_buckets),
            echoes=echoes,
            metrics=metrics,
            now=time.monotonic,
        )
        await serve_health(
            build_app(echoes, metrics, unready=operator.unready),
            port=settings.health_port,
            stack=stack,
        )
        registry = kopf.OperatorRegistry()
        register(registry, operator)

        async def watch() -> None:
            # A kind that is not served when kopf starts it never watches.
            await operator.listed.wait()
            await kopf.operator(
                registry=registry,
                namespaces=[settings.namespace],
                standalone=True,
                # Its own guess asks for our user's name, and a numeric user has none.
                identity=Identity(socket.gethostname()),
                stop_flag=stop,
            )

        halves = [
            asyncio.create_task(watch(), name="watches"),
            asyncio.create_task(operator.run(), name="operator"),
        ]
        waiting = [*halves, asyncio.create_task(stop.wait(), name="stop")]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        halves[1].cancel()
        if not operator.listed.is_set():
            halves[0].cancel()
        await asyncio.wait(halves)
        for task in done:
            if not task.cancelled() and task.exception() is not None:
                raise task.exception()  # type: ignore[misc]  # it is not None


async def serve_health(app: web.Application, *, port: int, stack: AsyncExitStack) -> None:
    """On our own loop: one that is stuck does not answer, and the kubelet notices."""
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
    stack.push_async_callback(runner.cleanup)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", port).start()
    log.info("health_served", extra={"port": runner.addresses[0][1]})


def main() -> int:
    try:
        settings, queue = OperatorSettings(), QueueSettings()
        database, secrets = DatabaseSettings(), SecretSettings()
        if database.is_sqlite:
            raise ConfigurationError(
                "the operator shares its jobs with the API and needs MySQL: set MYSQL_HOST (and "
                "MYSQL_USER, MYSQL_PASSWORD, MYSQL_DATABASE)"
            )
        ambient = AmbientSettings()
        configure_logging(
            secrets=[
                secret.get_secret_value()
                for secret in (
                    *(database.mysql_password, secrets.secret_key, secrets.webhook_secret),
                    *(ambient.access_key_secret, ambient.session_token),
                )
                if secret is not None and secret.get_secret_value()
            ]
        )
        for name in QUIET:
            logging.getLogger(name).setLevel(logging.WARNING)
        with open_store(database, secrets) as store:
            migrate(store)
            asyncio.run(run(store, settings, queue))
    except ValidationError as error:
        for sentence in wrong_settings(error):
            print(f"encoder operator: {sentence}", file=sys.stderr)
        return 2
    except EncoderError as error:
        print(f"encoder operator: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
