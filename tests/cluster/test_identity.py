"""Who a worker is on a real node: an account's token for the cloud, none for the cluster."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from tests.cluster.deployment import NAMESPACE, Deployment, fresh
from tests.cluster.test_failures import begin_long, make_pool, processes_of, wait_for_end
from tests.cluster.test_service import LONG_CLIP, SLOW

Clip = Callable[[str], Path]

ACCOUNT = "encoder-worker-media"
ROLE = "arn:aws:iam::123456789012:role/media"
TOKEN = "etc/encoder/identity/token"
WORKER_GROUP = 10001


def test_an_account_that_a_pool_lends_is_a_token_for_the_cloud_and_nobody_else(
    service: Deployment, clip: Clip
) -> None:
    source = service.http.serve("/identity/long.mp4", clip(LONG_CLIP).read_bytes())
    account = ("create", "serviceaccount", ACCOUNT, "--dry-run=client", "-o", "yaml")
    service.kubectl("apply", "-f", "-", text=service.kubectl(*account))
    lends = {"from": "ServiceAccount", "serviceAccountName": ACCOUNT, "roleArn": ROLE}
    pool = fresh("cloud")
    make_pool(service, pool, ambientCredentials=lends)
    number, name = begin_long(service, pool, source, **SLOW)
    pod = service.pod(name)
    assert pod is not None
    by_program = {Path(words[0]).name: process for words, process in processes_of(pod)}
    worker = next(at for program, at in by_program.items() if program.startswith("python"))
    token = worker / "root" / TOKEN
    claims, readable = claims_of(token.read_text()), token.stat()
    environments = {at: (at / "environ").read_text() for at in by_program.values()}
    status = ask_api_server(service, token.read_text())
    assert service.request("POST", f"/jobs/{number}/cancel").ok
    assert pod["spec"]["serviceAccountName"] == ACCOUNT
    assert claims["aud"] == ["sts.amazonaws.com"]
    assert claims["sub"] == f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
    assert (readable.st_gid, readable.st_mode & 0o077) == (WORKER_GROUP, 0o040)
    assert not (worker / "root" / "var/run/secrets/kubernetes.io").exists()
    assert [at for at, text in environments.items() if ROLE in text] == [worker]
    assert "ffmpeg" in by_program
    assert status == requests.codes.unauthorized
    assert wait_for_end(service, number)["status"] == "canceled"


def test_a_job_of_somebody_else_in_that_pool_is_nobody(service: Deployment, clip: Clip) -> None:
    source = service.http.serve("/identity/long.mp4", clip(LONG_CLIP).read_bytes())
    lends = {"from": "ServiceAccount", "serviceAccountName": f"{ACCOUNT}-of-film"}
    pool = fresh("film")
    make_pool(service, pool, ambientCredentials={**lends, "owners": ["film"]})
    number, name = begin_long(service, pool, source, **SLOW)
    pod = service.pod(name)
    assert service.request("POST", f"/jobs/{number}/cancel").ok
    assert pod is not None
    assert pod["spec"]["serviceAccountName"] == "encoder-worker"
    assert "identity" not in {volume["name"] for volume in pod["spec"]["volumes"]}
    assert wait_for_end(service, number)["status"] == "canceled"


def claims_of(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(
        base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    )
    return claims


def ask_api_server(service: Deployment, token: str) -> int:
    answer = requests.get(
        f"{service.cluster.url}/api/v1/namespaces/{NAMESPACE}/pods",
        headers={"Authorization": f"Bearer {token}"},
        verify=str(service.cluster.authority),
        timeout=30,
    )
    return answer.status_code
