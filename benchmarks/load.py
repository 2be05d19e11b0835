"""HTTP clients that ask as fast as they are answered, or at a rate, and note how long it took."""

from __future__ import annotations

import http.client
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

CLIENTS = 16  # a service at its limit has a queue at its door; fewer would measure round trips


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    status: int
    """What the answer has to be: a fast refusal must not count as speed."""
    body: bytes | None = None
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """How long each request took, in seconds, and the whole of them."""

    took_s: list[float]
    whole_s: float

    @property
    def per_s(self) -> float:
        return len(self.took_s) / self.whole_s

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(self.took_s)
        return 1000 * ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def ask_for(seconds: float, url: str, request: Request, *, per_s: float | None = None) -> Answers:
    """
    Ask from several connections for so long.

    With a rate each request is due at its own instant, and its time counts from there: a server
    that stops for a second is charged for everybody who came meanwhile.
    """
    began = time.perf_counter()
    end = began + seconds
    took: list[list[float]] = [[] for _ in range(CLIENTS)]
    failed: list[BaseException] = []

    def client(number: int) -> None:
        try:
            pause = None if per_s is None else CLIENTS / per_s
            offset = number / CLIENTS
            _ask(url, request, took[number], began=began, end=end, pause_s=pause, offset=offset)
        except Exception as error:  # it is raised again where the benchmark sees it
            failed.append(error)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return Answers([value for values in took for value in values], time.perf_counter() - began)


def _ask(
    url: str,
    request: Request,
    took: list[float],
    *,
    began: float,
    end: float,
    pause_s: float | None,
    offset: float,
) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    due_at = _instants(began, pause_s, offset)
    try:
        while (due := due_at()) < end:
            time.sleep(max(0.0, due - time.perf_counter()))
            connection.request(
                request.method, request.path, body=request.body, headers=dict(request.headers or {})
            )
            response = connection.getresponse()
            text = response.read()
            took.append(time.perf_counter() - due)
            if response.status != request.status:
                raise RuntimeError(f"{request.path} answered {response.status}: {text[:500]!r}")
    finally:
        connection.close()


def _instants(began: float, pause_s: float | None, offset: float) -> Callable[[], float]:
    """When each next request is due: now, or by the rate."""
    if pause_s is None:
        return time.perf_counter
    number = -1

    def next_instant() -> float:
        nonlocal number
        number += 1
        return began + (number + offset) * pause_s

    return next_instant
