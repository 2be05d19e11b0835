"""What the record's processes read from the environment."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL

from encoder_core.reports import WorkerLimits


def default_data_dir() -> Path:
    """`$XDG_DATA_HOME/encoder`, which is `~/.local/share/encoder` when that is not set."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "encoder"


class Settings(BaseSettings):
    """Frozen; read once, where a process starts. Empty variables count as not set."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True
    )


def _env(name: str) -> AliasChoices:
    return AliasChoices(name)


class DatabaseSettings(Settings):
    """Where jobs are recorded: MySQL when `MYSQL_HOST` is set, otherwise a SQLite file."""

    mysql_host: str | None = Field(None, validation_alias=_env("MYSQL_HOST"))
    """Needed as soon as more than one process works on the same jobs."""
    mysql_port: int = Field(3306, ge=1, le=65535, validation_alias=_env("MYSQL_PORT"))
    """MySQL's, not the API's."""
    mysql_user: str = Field("encoder", validation_alias=_env("MYSQL_USER"))
    """May create tables: the schema is made and upgraded on boot."""
    mysql_password: SecretStr = Field(SecretStr(""), validation_alias=_env("MYSQL_PASSWORD"))
    """Sent to MySQL only; workers never see it."""
    mysql_database: str = Field("encoder", validation_alias=_env("MYSQL_DATABASE"))
    """Must exist; its tables are created in it."""
    data_dir: Path = Field(
        default_factory=default_data_dir, validation_alias=_env("ENCODER_DATA_DIR")
    )
    """Holds the SQLite file and scratch space; give it room for a few sources and outputs."""

    @property
    def is_sqlite(self) -> bool:
        return self.mysql_host is None

    @property
    def url(self) -> URL:
        if self.mysql_host is None:
            return URL.create("sqlite", database=str(self.data_dir / "encoder.db"))
        return URL.create(
            "mysql+pymysql",
            username=self.mysql_user,
            password=self.mysql_password.get_secret_value(),
            host=self.mysql_host,
            port=self.mysql_port,
            database=self.mysql_database,
        )


class QueueSettings(Settings):
    """How jobs are handed out, tried again and forgotten."""

    poll_interval_ms: int = Field(1000, ge=50, validation_alias=_env("QUEUE_POLL_INTERVAL_MS"))
    """The longest wait between two looks at an empty queue."""
    visibility_timeout_ms: int = Field(
        600_000, ge=5_000, validation_alias=_env("QUEUE_VISIBILITY_TIMEOUT_MS")
    )
    """How long a job stays with a worker that stopped extending its lease."""
    max_attempts: int = Field(3, ge=1, le=100, validation_alias=_env("QUEUE_MAX_ATTEMPTS"))
    """Attempts charged to the job itself; 3 means two retries. Lost machines are not charged."""
    retention_hours: int = Field(168, ge=1, validation_alias=_env("RETENTION_HOURS"))
    """How long finished jobs are kept."""


class SecretSettings(Settings):
    """The keys of this installation. Without them, generated ones are kept in the database."""

    secret_key: SecretStr | None = Field(None, validation_alias=_env("ENCODER_SECRET_KEY"))
    """Base64 of 32 bytes; seals stored credentials. Several by commas, newest first."""
    webhook_secret: SecretStr | None = Field(None, validation_alias=_env("ENCODER_WEBHOOK_SECRET"))
    """`whsec_` and base64; signs webhooks. Receivers verify with the same text."""


def _split(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _split_networks(value: Any) -> Any:
    for network in (parts := _split(value)):
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            raise ValueError(f"{network} is not a network such as 10.0.0.0/8") from None
    return parts


class TransferSettings(Settings):
    """What sources, destinations and webhooks may be, beside public addresses."""

    allowed_cidrs: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_networks)] = Field(
        (), validation_alias=_env("ENCODER_EGRESS_ALLOWED_CIDRS")
    )
    """Private networks that may be reached, comma-separated, such as those of an own S3 store."""
    denied_cidrs: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_networks)] = Field(
        (), validation_alias=_env("ENCODER_EGRESS_DENIED_CIDRS")
    )
    """Networks never reached, even if public or allowed: a cluster's Pods, Services and nodes."""
    files_root: Path | None = Field(None, validation_alias=_env("ENCODER_FILES_ROOT"))
    """The folder that `kind: file` may read and write. Without it `kind: file` is refused."""
    s3_ambient_buckets: Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_split)] = (
        Field(None, validation_alias=_env("ENCODER_S3_AMBIENT_BUCKETS"))
    )
    """The only buckets that this installation's own AWS credentials may be used for."""


class AttemptSettings(Settings):
    """What every attempt is held to, whichever engine runs it."""

    sandbox: Literal["report", "strict"] = Field("report", validation_alias=_env("ENCODER_SANDBOX"))
    """`strict`: run no ffmpeg where the kernel lacks Landlock or seccomp. `report`: only say so."""
    max_source_bytes: int = Field(
        100 * 1024**3, ge=1, validation_alias=_env("ENCODER_MAX_SOURCE_BYTES")
    )
    """The largest source that is fetched. The scratch space has to hold it, and all outputs."""
    max_output_bytes: int = Field(1024**4, ge=1, validation_alias=_env("ENCODER_MAX_OUTPUT_BYTES"))
    """The largest file that ffmpeg may write; one that grows without end does not fill the disk."""
    stall_s: float = Field(60.0, gt=0, validation_alias=_env("ENCODER_STALL_S"))
    """How long nothing may move in a fetch, a probe or an encode before it is ended as stalled."""

    def limits(self, *, deadline_s: float) -> WorkerLimits:
        return WorkerLimits(
            source_bytes=self.max_source_bytes,
            output_bytes=self.max_output_bytes,
            stall_s=self.stall_s,
            deadline_s=deadline_s,
            strict_sandbox=self.sandbox == "strict",
        )


def wrong_settings(error: ValidationError) -> list[str]:
    """What is wrong with which environment variable, a sentence each; never with its value."""
    return [
        f"{_variable(error.title, str(problem['loc'][0] if problem['loc'] else ''))} "
        + problem["msg"].removeprefix("Value error, ")
        for problem in error.errors(include_url=False, include_input=False)
    ]


def _variable(settings: str, field: str) -> str:
    """The environment variable behind a field of a settings class, both by name."""
    classes, found = [BaseSettings], dict[str, type[BaseSettings]]()
    while classes:
        cls = classes.pop()
        found[cls.__name__] = cls
        classes += cls.__subclasses__()
    prefix = found[settings].model_config.get("env_prefix", "") if settings in found else ""
    return f"{prefix}{field}".upper() or settings
