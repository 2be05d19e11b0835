"""What a pool lends to jobs without S3 credentials, to whom, and what nobody can borrow."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from encoder_core.errors import JobError
from encoder_core.reports import AmbientCredentials
from encoder_core.states import JobStatus
from encoder_db.store import Store
from encoder_operator.identity import Identity, build_identity, lend, read_lending
from encoder_operator.kube import JOBS
from encoder_operator.settings import AmbientSettings
from tests.db import builders as make
from tests.operator.desk import BY_HAND, Desk

OURS = AmbientCredentials(
    access_key_id=SecretStr("AKIA"),
    access_key_secret=SecretStr("secret"),
    region="eu-west-1",
    buckets=["media"],
    use_chain=False,
)
ROLE = "arn:aws:iam::123456789012:role/media"
ACCOUNT = {"from": "ServiceAccount", "serviceAccountName": "encoder-worker-media"}
NONE_OF_OURS = AmbientCredentials(region="eu-west-1", use_chain=False)
OF_THE_CLOUD = AmbientCredentials(region="eu-west-1", buckets=["media"], use_chain=True)


@pytest.mark.parametrize(
    ("spec", "owner", "want"),
    [
        pytest.param({}, "film", OURS, id="by default the operator's own, to everybody"),
        pytest.param({"from": "None"}, "film", NONE_OF_OURS, id="none, where a pool lends none"),
        pytest.param({"owners": ["film"]}, "film", OURS, id="those of the list"),
        pytest.param({"owners": ["film"]}, "kubernetes", NONE_OF_OURS, id="nobody else"),
        pytest.param({"owners": []}, "film", NONE_OF_OURS, id="an empty list is nobody"),
        pytest.param(ACCOUNT, "film", OF_THE_CLOUD, id="the cloud's role, and none of our keys"),
        pytest.param(
            {**ACCOUNT, "owners": ["film"]}, "kubernetes", NONE_OF_OURS, id="nor to others"
        ),
    ],
)
def test_what_is_lent(spec: dict[str, Any], owner: str, want: AmbientCredentials) -> None:
    assert lend(read_lending(spec), owner, OURS) == want


def test_without_keys_of_the_operator_a_worker_does_not_search_for_the_nodes_role() -> None:
    ours = AmbientSettings.model_validate({}).lend(buckets=None)
    assert not lend(read_lending({}), "film", ours).use_chain


def test_who_borrows_nothing_is_the_account_without_rights() -> None:
    assert build_identity(read_lending({}), "film", pod="x-a1") == Identity()
    assert build_identity(
        read_lending({**ACCOUNT, "owners": ["film"], "roleArn": ROLE}), "others", pod="x-a1"
    ) == Identity()  # fmt: skip


def test_a_role_is_taken_with_a_token_that_is_for_nobody_else() -> None:
    identity = build_identity(read_lending({**ACCOUNT, "roleArn": ROLE}), "film", pod="x" * 70)
    token = {"audience": "sts.amazonaws.com", "expirationSeconds": 3600, "path": "token"}
    assert identity == Identity(
        account="encoder-worker-media",
        volumes=({"name": "identity", "projected": {"sources": [{"serviceAccountToken": token}]}},),
        mounts=({"name": "identity", "mountPath": "/etc/encoder/identity", "readOnly": True},),
        env=(
            {"name": "AWS_EC2_METADATA_DISABLED", "value": "true"},
            {"name": "AWS_ROLE_ARN", "value": ROLE},
            {"name": "AWS_ROLE_SESSION_NAME", "value": "x" * 64},
            {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/etc/encoder/identity/token"},
        ),
    )


def test_without_a_role_the_cluster_brings_the_credentials_of_the_account() -> None:
    identity = build_identity(read_lending(ACCOUNT), "film", pod="x-a1")
    assert (identity.account, identity.volumes) == ("encoder-worker-media", ())
    assert identity.env == ({"name": "AWS_EC2_METADATA_DISABLED", "value": "true"},)


@pytest.mark.parametrize("name", ["encoder-operator", "default", "encoder-worker", None])
def test_an_account_that_is_not_for_workers_is_not_lent(name: str | None) -> None:
    spec = {"from": "ServiceAccount", "serviceAccountName": name}
    with pytest.raises(JobError, match="must begin with encoder-worker-") as caught:
        build_identity(read_lending(spec), "film", pod="x-a1")
    assert caught.value.code == "pod_invalid"


# --- By hand, in memory --------------------------------------------------------------------------


def test_a_job_by_hand_does_not_get_what_a_pool_lends_to_others(store: Store) -> None:
    desk = Desk(store, places=2)
    lends = {**ACCOUNT, "roleArn": ROLE, "owners": [make.OWNER]}
    desk.api.put_spec(desk.pool, {"maxConcurrency": 2, "ambientCredentials": lends})
    job, name = desk.admitted()
    assert desk.pod(name)["spec"]["serviceAccountName"] == "encoder-worker-media"
    assert desk.order_of(job)["ambient"]["useChain"] is True
    desk.apply("by-hand", BY_HAND)
    desk.settle("by-hand")
    desk.dispatch()
    desk.settle("by-hand")
    spec = desk.pod("by-hand")["spec"]
    assert spec["serviceAccountName"] == "encoder-worker"
    assert "identity" not in {volume["name"] for volume in spec["volumes"]}
    assert "env" not in spec["containers"][0]


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"serviceAccountName": "encoder-worker-media"}, id="an account"),
        pytest.param({"ambientCredentials": {"from": "Operator"}}, id="credentials of the service"),
        pytest.param({"podTemplate": {"serviceAccountName": "x"}}, id="a template of Pods"),
    ],
)
def test_a_job_cannot_ask_for(store: Store, more: dict[str, Any]) -> None:
    """The schema has no such field; one that somebody widened is not believed."""
    desk = Desk(store)
    desk.apply("by-hand", {**BY_HAND, **more})
    desk.settle("by-hand")
    status, reason, message = desk.condition("by-hand", "Succeeded")
    assert (status, reason) == ("False", "SpecInvalid")
    assert f"spec.{next(iter(more))}" in message
    assert make.count(store, "jobs") == 0


def test_a_pool_that_names_a_foreign_account_says_so_in_its_jobs(store: Store) -> None:
    desk = Desk(store)
    lends = {"from": "ServiceAccount", "serviceAccountName": "encoder-operator"}
    desk.api.put_spec(desk.pool, {"maxConcurrency": 1, "ambientCredentials": lends})
    job, name = desk.admitted()
    assert make.status(store, job) is JobStatus.QUEUED
    assert "must begin with encoder-worker-" in desk.condition(name, "Succeeded")[2]
    assert desk.api.all(JOBS)
