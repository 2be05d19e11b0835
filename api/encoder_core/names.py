"""Names of the Kubernetes objects of a job, and the labels and annotations they carry."""

from __future__ import annotations

import re
from typing import Final
from uuid import UUID

GROUP: Final = "encoder.dev"
VERSION: Final = "v1alpha1"
JOB_LABEL: Final = f"{GROUP}/job"
ATTEMPT_LABEL: Final = f"{GROUP}/attempt"
POOL_LABEL: Final = f"{GROUP}/pool"
CREDENTIALS_PREFIX: Final = "encoder-creds-"
"""A `credentialsSecretRef` must begin with it, so that no job can name a foreign Secret."""
ORDER_PREFIX: Final = "encoder-order-"

_RESOURCE = re.compile(r"tj-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


def resource_name(job: UUID) -> str:
    """The TranscodeJob of a job that came through the API."""
    return f"tj-{job}"


def job_of_resource(name: str) -> UUID | None:
    """The job a resource's name speaks of; None for names that people chose."""
    match = _RESOURCE.fullmatch(name)
    return UUID(match.group(1)) if match else None


def pod_name(resource: str, attempt: int) -> str:
    return f"{resource}-a{attempt}"


def secret_name(resource: str, attempt: int) -> str:
    """
    The work order of an attempt. What stands in its way is replaced unread, so the name must be one
    that nobody else's Secret has: people choose what a TranscodeJob is called.
    """
    return f"{ORDER_PREFIX}{pod_name(resource, attempt)}"
