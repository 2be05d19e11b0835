"""A unique word in every credential field, and none of them can be read from the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.canaries import canary, leaks
from tests.cluster.deployment import Deployment
from tests.cluster.test_service import CLIP, ENDED, LONG_CLIP, an_output, drip, hurry
from tests.servers.s3 import S3Bucket

Clip = Callable[[str], Path]

KINDS = "transcodejobs,transcodepools,pods,events,configmaps,deployments,cronjobs,jobs,leases"
"""All that the service makes or that tells of it, except Secrets: they are where secrets belong."""


def test_no_credential_can_be_read_from_resources_pods_logs_and_processes(
    service: Deployment, clip: Clip
) -> None:
    bucket = service.s3.make_bucket()
    bucket.put("in.mp4", clip(CLIP).read_bytes())
    service.http.serve("/good.mp4", clip(CLIP).read_bytes())
    drip(service, "/killed.mp4", clip(LONG_CLIP).read_bytes())
    words = Words()
    killed = service.submit(a_job(service, words, "killed"))
    good = service.submit(a_job(service, words, "good"))
    bad = service.submit(that_is_denied(bucket, words))
    seen: set[str] = set()
    victim = f"tj-{killed['uuid']}-a1"

    def look() -> None:
        seen.update(everything(service))

    def looked_until(number: int, reached: Callable[[dict[str, Any]], bool]) -> Callable[[], bool]:
        def check() -> bool:
            look()
            return reached(service.job(number))

        return check

    service.wait_for(
        "the long one encodes",
        looked_until(killed["id"], lambda job: (job["progress"] or {}).get("percent", 0) > 1),
    )
    service.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
    hurry(service, "/killed.mp4")
    for job in (good, bad, killed):
        service.wait_for("it ends", looked_until(job["id"], lambda job: job["status"] in ENDED))
    assert [service.job(job["id"])["status"] for job in (good, bad, killed)] == [
        *("completed", "failed", "completed"),
    ]
    text = "\n".join(seen)
    assert victim in text
    assert "ffmpeg" in text
    assert leaks(text, words.given) == []


class Words:
    def __init__(self) -> None:
        self.given: set[str] = set()

    def __call__(self, name: str) -> str:
        self.given.add(canary(name))
        return canary(name)


def a_job(service: Deployment, word: Words, name: str, **changes: Any) -> dict[str, Any]:
    """From HTTP to HTTP, with a word in each place where HTTP takes one."""

    def signed(url: str, what: str) -> str:
        return f"{url}?token={quote(word(f'{name}-{what}'), safe='')}"

    upload = {
        "kind": "http",
        "url": signed(f"{service.http.url}/{name}-out.mp4", "upload"),
        "headers": {"X-Key": word(f"{name}-put")},
    }
    return {
        "source": {
            "kind": "http",
            "url": signed(f"{service.http.url}/{name}.mp4", "source"),
            "headers": {"Authorization": f"Bearer {word(f'{name}-get')}"},
        },
        "outputs": [an_output(upload, **changes)],
        "notificationUrl": signed(f"{service.webhooks.url}/{name}", "hook"),
    }


def that_is_denied(bucket: S3Bucket, word: Words) -> dict[str, Any]:
    keys = {
        "access_key_id": word("key-id"),
        "access_key_secret": word("key-secret"),
        "session_token": word("session"),
    }
    return {
        "source": {**bucket.fields("in.mp4"), **keys},
        "outputs": [an_output(bucket.fields("never.mp4"))],
    }


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
