"""Whose S3 credentials a job that brings none may borrow, as its pool says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from encoder_core.errors import JobError
from encoder_core.reports import AmbientCredentials

ACCOUNT_PREFIX: Final = "encoder-worker-"
"""Of the accounts that a pool may name, so that none can make its workers somebody else."""
AUDIENCE: Final = "sts.amazonaws.com"
TOKEN_FOLDER: Final = "/etc/encoder/identity"
TOKEN_S: Final = 3600  # the kubelet renews it under the worker's feet
SESSION_CHARACTERS: Final = 64  # what STS takes for the name in its log


class Lender(StrEnum):
    """`spec.ambientCredentials.from` of a TranscodePool."""

    OPERATOR = "Operator"  #: What the operator has in `AWS_*`, copied into the attempt's Secret.
    SERVICE_ACCOUNT = "ServiceAccount"  #: The cloud's role of a service account.
    NOBODY = "None"  #: A job without credentials has none.


@dataclass(frozen=True, slots=True, kw_only=True)
class Lending:
    """What a pool lends, and to whom."""

    lender: Lender = Lender.OPERATOR
    owners: frozenset[str] | None = None
    """None: everybody whose jobs run in the pool."""
    account: str | None = None
    role_arn: str | None = None
    """None: something of the cluster brings the credentials to Pods of that account."""
    audience: str = AUDIENCE

    def to(self, owner: str) -> Lender:
        """Who lends to a job of this owner."""
        return self.lender if self.owners is None or owner in self.owners else Lender.NOBODY


def read_lending(spec: Mapping[str, Any]) -> Lending:
    owners = spec.get("owners")
    return Lending(
        lender=Lender(spec.get("from", Lender.OPERATOR)),
        owners=None if owners is None else frozenset(owners),
        account=spec.get("serviceAccountName"),
        role_arn=spec.get("roleArn"),
        audience=spec.get("audience", AUDIENCE),
    )


def lend(lending: Lending, owner: str, ours: AmbientCredentials) -> AmbientCredentials:
    """
    What the order of an attempt says. `ours` are the operator's own.

    Only who was given an account of the cloud may search for credentials as boto3 does.
    """
    match lending.to(owner):
        case Lender.OPERATOR:
            return ours
        case Lender.SERVICE_ACCOUNT:
            return AmbientCredentials(region=ours.region, buckets=ours.buckets, use_chain=True)
        case Lender.NOBODY:
            return AmbientCredentials(region=ours.region, use_chain=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a Pod has of an account besides its name."""

    account: str | None = None
    """None: the one without rights, which all workers have."""
    volumes: tuple[dict[str, Any], ...] = ()
    mounts: tuple[dict[str, Any], ...] = ()
    env: tuple[dict[str, str], ...] = ()


def build_identity(lending: Lending, owner: str, *, pod: str) -> Identity:
    """
    Who the Pod of an attempt is.

    Raises JobError `pod_invalid` for an account that is not one of workers. The schema refuses it
    already; one that somebody changed must not lend out the rights of another part.
    """
    if lending.to(owner) is not Lender.SERVICE_ACCOUNT:
        return Identity()
    if lending.account is None or not lending.account.startswith(ACCOUNT_PREFIX):
        raise JobError(
            "pod_invalid",
            f"ambientCredentials.serviceAccountName of the pool must begin with {ACCOUNT_PREFIX}.",
        )
    # Never the role of the node, should the account's own not come.
    env = [{"name": "AWS_EC2_METADATA_DISABLED", "value": "true"}]
    if lending.role_arn is None:
        return Identity(account=lending.account, env=tuple(env))
    token = {"audience": lending.audience, "expirationSeconds": TOKEN_S, "path": "token"}
    env += [
        {"name": "AWS_ROLE_ARN", "value": lending.role_arn},
        {"name": "AWS_ROLE_SESSION_NAME", "value": pod[:SESSION_CHARACTERS]},
        {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": f"{TOKEN_FOLDER}/token"},
    ]
    return Identity(
        account=lending.account,
        volumes=({"name": "identity", "projected": {"sources": [{"serviceAccountToken": token}]}},),
        mounts=({"name": "identity", "mountPath": TOKEN_FOLDER, "readOnly": True},),
        env=tuple(env),
    )
