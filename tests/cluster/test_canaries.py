"""A unique word in every credential field, and none of them comes out of the cluster anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests
from sqlalchemy import URL

from tests.canaries import leaks
from tests.cluster.deployment import API_KEY, Deployment
from tests.cluster.test_service import CLIP, ENDED, LONG_CLIP
from tests.harness.canary_jobs import Places
from tests.harness.readable import every_answer, every_row
from tests.servers.webhooks import SECRET

Clip = Callable[[str], Path]

KINDS = "transcodejobs,transcodepools,pods,events,configmaps,deployments,cronjobs,jobs,leases"
"""All that the service makes or that tells of it, except Secrets: they are where secrets belong."""

METRICS = {"encoder-api": 8080, "encoder-operator": 8081}
"""Of the sender the API tells, by the record."""


def test_no_credential_comes_out_anywhere(service: Deployment, clip: Clip) -> None:
    places = Places(service.s3.make_bucket(), service.http, service.ftp, service.webhooks)
    places.serve(clip(CLIP).read_bytes(), clip(LONG_CLIP).read_bytes())
    before = len(service.webhooks.deliveries)
    killed = service.submit(places.long(preset="slower"))
    good = [service.submit(request) for request in (places.all_right(), places.from_s3())]
    bad = [
        service.submit(request)
        for request in (places.no_destination_takes_it(), *places.no_source_gives_it())
    ]
    seen: set[str] = set()
    victim = f"tj-{killed['uuid']}-a1"

    def looked_until(number: int, reached: Callable[[dict[str, Any]], bool]) -> Callable[[], bool]:
        def check() -> bool:
            seen.update(everything(service))
            return reached(service.job(number))

        return check

    service.wait_for(
        "the long one encodes",  # looking at everything would take longer than it does
        lambda: (service.job(killed["id"])["progress"] or {}).get("percent", 0) > 1,
    )
    service.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
    jobs = [*good, *bad, killed]
    for job in jobs:
        service.wait_for("it ends", looked_until(job["id"], lambda job: job["status"] in ENDED))
    assert [service.job(job["id"])["status"] for job in jobs] == [
        *["completed"] * len(good),
        *["failed"] * len(bad),
        "completed",
    ]
    told = {good[0]["uuid"]: "job.completed", bad[0]["uuid"]: "job.failed"}
    told[killed["uuid"]] = "job.completed"
    deliveries = service.webhooks.wait_for(
        lambda all_: (
            {(d.body["data"]["uuid"], d.body["type"]) for d in all_[before:]} >= set(told.items())
        )
    )
    answers = every_answer(lambda path: service.request("GET", path), [job["id"] for job in jobs])
    for part, port in METRICS.items():
        for pod in service.pods_of(part):
            address = pod["status"]["podIP"]
            metrics = requests.get(f"http://{address}:{port}/metrics", timeout=30)
            assert metrics.status_code == 200
            answers[f"{pod['metadata']['name']} /metrics"] = metrics.text

    text = "\n".join(seen)
    assert victim in text
    assert "ffmpeg" in text
    words = {*places.words, SECRET, API_KEY}
    found = {
        # The parts' own secrets are in their environments, and servers of the test know theirs.
        "resources, logs and processes": leaks(text, places.canaries),
        "rows": leaks(every_row(database_of(service)), words),
        "webhooks": leaks("\n".join(str(d.raw) for d in deliveries[before:]), words),
        "what the parts asked of Kubernetes": leaks(service.audit.read_text(), words),
        **{where: leaks(answer, words) for where, answer in answers.items()},
    }
    assert {where: what for where, what in found.items() if what} == {}


def database_of(service: Deployment) -> str:
    settings = service.settings
    url = URL.create(
        "mysql+pymysql",
        username=settings["MYSQL_USER"],
        password=settings["MYSQL_PASSWORD"],
        host=settings["MYSQL_HOST"],
        port=int(settings["MYSQL_PORT"]),
        database=settings["MYSQL_DATABASE"],
    )
    return url.render_as_string(hide_password=False)


def everything(service: Deployment) -> Iterator[str]:
    """Resources as the API server has them, logs of all Pods, and all processes of the nodes."""
    yield service.kubectl("get", KINDS, "-o", "yaml", "--show-managed-fields")
    for pod in service.kubectl("get", "pods", "-o", "name").split():
        with suppress(Exception):  # it has no log yet, or is gone
            yield service.kubectl("logs", pod, "--all-containers")
    for process in Path("/proc").glob("[0-9]*"):
        for what in ("cmdline", "environ"):
            with suppress(OSError):  # it ended meanwhile
                yield (process / what).read_bytes().decode("latin-1")
