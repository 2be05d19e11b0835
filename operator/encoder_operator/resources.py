"""A job as a TranscodeJob, and a TranscodeJob as a job. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from encoder_core.names import GROUP, JOB_LABEL, POOL_LABEL, VERSION, resource_name
from encoder_core.specs import JobSpec
from encoder_db.rows import JobRow

_NOT_OF_A_JOB: Final = frozenset(
    {"jobUID", "poolRef", "credentialsSecretRef", "resources", "desiredState"}
    | {"activeDeadlineSeconds", "startDeadlineSeconds"}
)


def build_resource(job: JobRow, outputs: list[dict[str, Any]]) -> dict[str, Any]:
    """
    The TranscodeJob of a job that came through the API: a copy for people to read.

    The worker's order is made from the row. What is secret is not in the row's documents; the
    marks that say so are dropped here.
    """
    request = {key: value for key, value in job.request.items() if key != "pool"}
    spec = {
        **_without_secret_marks(request),
        "jobUID": str(job.uuid),
        "poolRef": {"name": job.pool},
        "source": _without_secret_marks(job.source),
        "outputs": [_without_secret_marks(output) for output in outputs],
    }
    name = resource_name(job.uuid)
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TranscodeJob",
        "metadata": {"name": name, "labels": {JOB_LABEL: name, POOL_LABEL: job.pool}},
        "spec": spec,
    }


def _without_secret_marks(value: Any) -> Any:
    """Also without what is empty then, such as headers: the schema knows none of those fields."""
    if isinstance(value, Mapping):
        return {
            key: _without_secret_marks(item) for key, item in value.items() if not _is_secret(item)
        }
    return [_without_secret_marks(item) for item in value] if isinstance(value, list) else value


def _is_secret(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    return value == {"set": True} or all(_is_secret(item) for item in value.values())


def read_spec(spec: Mapping[str, Any], *, pool: str) -> JobSpec:
    """The job that somebody applied. Raises pydantic's ValidationError."""
    document = {key: value for key, value in spec.items() if key not in _NOT_OF_A_JOB}
    return JobSpec.model_validate({**document, "pool": pool})


def is_copy(spec: Mapping[str, Any], of: Mapping[str, Any]) -> bool:
    """Whether a resource has all that we wrote; the API server adds defaults of its own."""
    return all(_is_copy(spec.get(key), value) for key, value in of.items())


def _is_copy(value: Any, of: Any) -> bool:
    if isinstance(of, Mapping):
        return is_copy(value or {}, of)
    if isinstance(of, list):
        same_length = isinstance(value, list) and len(value) == len(of)
        return same_length and all(map(_is_copy, value, of))
    return bool(value == of)
