"""What a cluster admin can set for the operator. Read once, from the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from encoder_core.reports import AmbientCredentials
from encoder_operator.quantity import parse_millicores

_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def _quantity(text: str) -> str:
    try:
        parse_millicores(text)
    except ValueError:
        raise ValueError("must be a quantity of Kubernetes, such as 500m or 2Gi") from None
    return text


Quantity = Annotated[str, AfterValidator(_quantity)]


def own_namespace() -> str:
    """The namespace of our own Pod; `default` outside a cluster."""
    try:
        return _NAMESPACE_FILE.read_text().strip()
    except OSError:
        return "default"


class AmbientSettings(BaseSettings):
    """What the operator lends to requests without credentials, in the Secret of their attempt."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, populate_by_name=True)

    access_key_id: SecretStr | None = Field(None, validation_alias="AWS_ACCESS_KEY_ID")
    """Of an account that may read the sources and write the destinations, and no more."""

    access_key_secret: SecretStr | None = Field(None, validation_alias="AWS_SECRET_ACCESS_KEY")
    """Never sent to an endpoint that a request named."""

    session_token: SecretStr | None = Field(None, validation_alias="AWS_SESSION_TOKEN")
    """Only with temporary credentials, which end with it: jobs that wait longer then fail."""

    region: str | None = Field(None, validation_alias="AWS_REGION")
    """For requests that name none."""

    def lend(self, *, buckets: tuple[str, ...] | None) -> AmbientCredentials:
        """`buckets`: the only ones that they may be used for; None is all."""
        return AmbientCredentials(
            access_key_id=self.access_key_id,
            access_key_secret=self.access_key_secret,
            session_token=self.session_token,
            region=self.region,
            buckets=None if buckets is None else list(buckets),
            # In a Pod the search for others would end at the role of the node.
            use_chain=False,
        )


class OperatorSettings(BaseSettings):
    """Where the operator works and how hard. Read from ENCODER_OPERATOR_*."""

    model_config = SettingsConfigDict(
        env_prefix="ENCODER_OPERATOR_", frozen=True, env_ignore_empty=True
    )

    namespace: str = Field(default_factory=own_namespace)
    """Where TranscodeJobs, their Pods and their Secrets are. Default: the operator's own."""

    worker_image: str = "encoder-worker:latest"
    """What Pods run."""

    image_pull_policy: str = "IfNotPresent"
    """`Always` for a tag that moves; then a registry that is down stops every new attempt."""

    report_url: str = "http://encoder-api:8080/internal/reports"
    """Where workers report. Must be reachable from Pods of the work namespace."""

    worker_service_account: str = "encoder-worker"
    """An account without rights; its token is not mounted."""

    max_running: int = Field(1000, ge=0)
    """
    Jobs that run at once in all pools together. 0 starts nothing, whatever the pools say. What
    waits for it says `OperatorFull`.
    """

    cpu: Quantity | None = None
    """What a Pod asks of its node, where job and pool say nothing. Default: by the job's plan."""

    cpu_limit: Quantity | None = None
    """Default: none, so that idle cores of the node are used."""

    memory: Quantity | None = None
    """Request and limit, where job and pool say nothing. Default: by the job's plan."""

    scratch: Quantity | None = None
    """Room for source and outputs. Default: by the plan where sizes are known, else `10Gi`."""

    deadline_s: int = Field(24 * 3600, gt=0)
    """How long an attempt may run before its Pod is ended, where its pool says nothing."""

    retention_s: int = Field(3600, ge=0)
    """How long a finished TranscodeJob and its Pods stay, where its pool says nothing."""

    writes_per_s: float = Field(50.0, gt=0)
    """All writes to the API server together."""

    write_burst: int = Field(100, ge=1)
    """Writes at once after a pause, such as when a full pool is opened."""

    in_flight: int = Field(8, ge=1)
    """
    Calls to the API server at once. More of them only wait there, where what starts and stops work
    does not come first.
    """

    canary_s: float = Field(60.0, gt=0)
    """The process ends, to start anew, when watches owe the echo of a write for three of these."""

    health_port: int = Field(8081, ge=0, le=65535)
    """Of `/healthz`, `/readyz` and `/metrics`, on all addresses; 0 takes a free one."""

    reconcilers: int = Field(8, ge=1, le=64)
    """Jobs that are looked at at once."""

    resync_s: float = Field(300.0, gt=0)
    """How often everything is listed again, to find what a watch missed."""

    progress_s: float = Field(15.0, gt=0)
    """How often a running job's progress is written to its resource, when it changed."""
