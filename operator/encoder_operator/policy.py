"""What a TranscodePool settles for its jobs, read from its spec once for each decision. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from encoder_core.retries import RetryLimits
from encoder_operator.identity import Lending, read_lending
from encoder_operator.quantity import parse_bytes, parse_millicores

START_DEADLINE_S: Final = 600
IMAGE_GRACE_S: Final = 600
GROWTH_PERCENT: Final = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """The most that one job may have. None: no such limit."""

    cpu_m: int | None = None
    memory: int | None = None
    scratch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPolicy:
    """A TranscodePool's spec with the operator's own settings for what it leaves open."""

    name: str = "default"
    stop_policy: str = "None"
    max_per_owner: int | None = None
    start_deadline_s: int = START_DEADLINE_S
    """How long a Pod may take to start."""
    active_deadline_s: int = 24 * 3600
    """How long an attempt may run."""
    image_grace_s: int = IMAGE_GRACE_S
    retries: RetryLimits = field(default_factory=RetryLimits)
    growth_percent: int = GROWTH_PERCENT
    """Of what an attempt had that ran out of memory or disk."""
    memory_max: int | None = None
    keep_completed: timedelta = timedelta(hours=1)
    keep_failed: timedelta = timedelta(hours=1)
    caps: Caps = field(default_factory=Caps)
    lending: Lending = field(default_factory=Lending)
    template: Mapping[str, Any] = field(default_factory=dict)

    @property
    def most_memory(self) -> int | None:
        """Where growing ends."""
        limits = [limit for limit in (self.memory_max, self.caps.memory) if limit is not None]
        return min(limits) if limits else None


def read_policy(name: str, spec: Mapping[str, Any] | None, defaults: PoolPolicy) -> PoolPolicy:
    """`spec` None: there is no such TranscodePool at the moment; its jobs go on by the defaults."""
    spec = spec or {}
    retries, growth = spec.get("retries") or {}, spec.get("memoryGrowth") or {}
    retention, caps = spec.get("retention") or {}, spec.get("resourceCaps") or {}
    seconds = {
        key: timedelta(seconds=retention[key]) if key in retention else default
        for key, default in (
            ("completedSeconds", defaults.keep_completed),
            ("failedSeconds", defaults.keep_failed),
        )
    }
    return PoolPolicy(
        name=name,
        stop_policy=spec.get("stopPolicy", "None"),
        max_per_owner=spec.get("maxPerOwner"),
        start_deadline_s=spec.get("startDeadlineSeconds", defaults.start_deadline_s),
        active_deadline_s=spec.get("activeDeadlineSeconds", defaults.active_deadline_s),
        image_grace_s=spec.get("imagePullGraceSeconds", defaults.image_grace_s),
        retries=RetryLimits(
            app=retries.get("app", defaults.retries.app),
            infra=retries.get("infra", defaults.retries.infra),
            config=retries.get("config", defaults.retries.config),
        ),
        growth_percent=growth.get("percent", defaults.growth_percent),
        memory_max=_bytes(growth.get("max")),
        keep_completed=seconds["completedSeconds"],
        keep_failed=seconds["failedSeconds"],
        caps=Caps(
            cpu_m=parse_millicores(caps["cpu"]) if "cpu" in caps else None,
            memory=_bytes(caps.get("memory")),
            scratch=_bytes(caps.get("ephemeral-storage")),
        ),
        lending=read_lending(spec.get("ambientCredentials") or {}),
        template=spec.get("podTemplate") or {},
    )


def _bytes(quantity: Any) -> int | None:
    return None if quantity is None else parse_bytes(quantity)
