"""
The closed catalogue of failures: who is at fault, whether to try again, and what to do about it.

One table drives the retry rules, the documents clients see, the reasons on custom resources, the
metrics and `docs/failures.md`. Codes are public and never renamed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, Field, StringConstraints

from encoder_core.model import NOT_BOOLEAN, Model

MESSAGE_CHARACTERS: Final = 1024  # what fits the column and a kubectl line


class Fault(StrEnum):
    """Who has to act."""

    REQUEST = "request"  #: The request asks for something that cannot be.
    SOURCE = "source"  #: What is fetched, its server or its credentials.
    DESTINATION = "destination"  #: The destination, its server or its credentials.
    MEDIA = "media"  #: ffmpeg could not do it with this source.
    CAPACITY = "capacity"  #: Memory, disk, time or room in the cluster.
    SERVICE = "service"  #: The machines or the service itself.
    CALLER = "caller"  #: Somebody asked for it.


class Budget(StrEnum):
    """Which allowance another attempt uses up."""

    APP = "app"  #: `QUEUE_MAX_ATTEMPTS` attempts in all.
    INFRA = "infra"  #: The machines' doing; a larger allowance, not shown as retries.
    CAPACITY = "capacity"  #: Waits for room, as long as it takes.
    CONFIG = "config"  #: May be mended by an admin meanwhile; a few tries, then final.
    NONE = "none"  #: Final at once: trying again cannot help.


@dataclass(frozen=True, slots=True)
class FailureKind:
    """One row of the catalogue."""

    code: str
    fault: Fault
    budget: Budget
    title: str
    hint: str
    """What to do, addressed to whoever is at fault."""

    @property
    def retryable(self) -> bool:
        return self.budget is not Budget.NONE


def _kinds(*rows: tuple[str, Fault, Budget, str, str]) -> dict[str, FailureKind]:
    kinds = {row[0]: FailureKind(*row) for row in rows}
    if len(kinds) != len(rows):
        raise ValueError("a failure code is in the catalogue twice")
    return kinds


F, B = Fault, Budget
FAILURES: Final = _kinds(
    # The request
    ("request_impossible", F.REQUEST, B.NONE, "The outputs cannot be made as asked",
     "Change the field that the message names."),
    ("address_not_allowed", F.REQUEST, B.NONE, "The address is not allowed",
     "Use a public address, or ask the admin to add the network to ENCODER_EGRESS_ALLOWED_CIDRS."),
    ("file_not_allowed", F.REQUEST, B.NONE, "Files are not served by this engine",
     "Use kind file only with `encoder up`, with a path under ENCODER_FILES_ROOT."),
    ("credentials_required", F.REQUEST, B.NONE, "The stored credentials are gone",
     "Send the request again, or retry with new credentials."),
    ("credentials_missing", F.REQUEST, B.NONE, "The Secret with the credentials is not there",
     "Create the Secret that spec.credentialsSecretRef names, then apply the job again."),
    # The source
    ("source_unreachable", F.SOURCE, B.APP, "The source's server did not answer",
     "Check that the server is up and reachable from where the workers run."),
    ("source_not_found", F.SOURCE, B.NONE, "The source does not exist",
     "Check where it is said to be: the URL, or the path, bucket and region."),
    ("source_denied", F.SOURCE, B.NONE, "The source's server refused access",
     "Check the credentials and that they may read this object; signed URLs may have expired."),
    ("source_changed", F.SOURCE, B.APP, "The source changed while it was read",
     "Upload sources under a new name instead of overwriting them."),
    ("source_truncated", F.SOURCE, B.APP, "The source ended before its announced length",
     "Check the file at the source; the server closed the connection early."),
    ("source_too_large", F.SOURCE, B.NONE, "The source is larger than allowed",
     "Ask the admin to raise the size limit."),
    ("source_slow", F.SOURCE, B.APP, "The source's server is too slow",
     "Serve the source from a faster place."),
    ("source_invalid", F.SOURCE, B.NONE, "The source is not a media file that can be read",
     "Check that the file plays; playlists and project files are not accepted."),
    ("source_rejected", F.SOURCE, B.NONE, "The source's server rejected the request",
     "Check the URL and the headers."),
    # The image of a watermark
    ("watermark_unavailable", F.SOURCE, B.APP, "The watermark's image could not be fetched",
     "Check that the image's server is up and reachable from where the workers run."),
    ("watermark_invalid", F.REQUEST, B.NONE, "The watermark's image cannot be used",
     "Check where the image is and what may read it: a PNG, JPEG or WebP of at most 16 MiB."),
    # The destination
    ("destination_unreachable", F.DESTINATION, B.APP, "The destination's server did not answer",
     "Check that the server is up and reachable from where the workers run."),
    ("destination_not_found", F.DESTINATION, B.NONE, "The destination does not exist",
     "Create the bucket or the folder first."),
    ("destination_denied", F.DESTINATION, B.NONE, "The destination refused access",
     "Check the credentials and that they may write there."),
    ("destination_rejected", F.DESTINATION, B.NONE, "The destination rejected the upload",
     "Check the path, the ACL and the bucket's settings."),
    ("destination_full", F.DESTINATION, B.APP, "The destination has no room",
     "Free some room at the destination, then retry the job."),
    # ffmpeg
    ("encode_failed", F.MEDIA, B.APP, "ffmpeg could not encode this source",
     "Read the last lines of ffmpeg in the failure's detail."),
    ("encode_stalled", F.MEDIA, B.APP, "ffmpeg made no progress",
     "Retry; if it stalls again, the source may be damaged."),
    ("output_truncated", F.MEDIA, B.APP, "The output is shorter than the plan",
     "Check that the source is complete; nothing was published."),
    ("output_invalid", F.MEDIA, B.APP, "The output is not what was asked for",
     "Read the message; nothing was published."),
    # Room and time
    ("capacity_memory", F.CAPACITY, B.APP, "The worker ran out of memory",
     "Ask for fewer or smaller outputs, or give the pool more memory."),
    ("capacity_disk", F.CAPACITY, B.APP, "The worker ran out of disk",
     "Give the pool more scratch space."),
    ("deadline_exceeded", F.CAPACITY, B.NONE, "The job took longer than its deadline",
     "Raise the deadline or choose a faster preset."),
    ("pod_unschedulable", F.CAPACITY, B.CAPACITY, "No node has room",
     "Add nodes or lower the pool's requests."),
    ("pool_drained", F.CAPACITY, B.CAPACITY, "The pool is being emptied",
     "Nothing to do: it starts once the pool's stopPolicy is None again."),
    ("quota_exceeded", F.CAPACITY, B.CAPACITY, "The namespace's quota is used up",
     "Raise the ResourceQuota or wait."),
    ("never_fits", F.CAPACITY, B.NONE, "The job asks for more than any node has",
     "Lower the job's resources or add a larger node."),
    # The service and its machines
    ("worker_lost", F.SERVICE, B.INFRA, "The worker disappeared",
     "Nothing to do: it is tried again."),
    ("worker_interrupted", F.SERVICE, B.INFRA, "The worker was told to stop",
     "Nothing to do: it is tried again."),
    ("worker_stalled", F.SERVICE, B.INFRA, "The worker stopped reporting",
     "Nothing to do: it is tried again."),
    ("worker_failed", F.SERVICE, B.APP, "The worker failed unexpectedly",
     "Report it with the job's number; the worker's log has the cause."),
    ("sandbox_incomplete", F.SERVICE, B.CONFIG, "ffmpeg cannot be locked in on this machine",
     "Run workers on a kernel with Landlock and seccomp, or set ENCODER_SANDBOX=report."),
    ("node_lost", F.SERVICE, B.INFRA, "The node disappeared",
     "Nothing to do: it is tried again elsewhere."),
    ("pod_evicted", F.SERVICE, B.INFRA, "The Pod was evicted",
     "Nothing to do: it is tried again."),
    ("node_drained", F.SERVICE, B.INFRA, "The node is being emptied",
     "Nothing to do: it is tried again elsewhere."),
    ("node_shutdown", F.SERVICE, B.INFRA, "The node shut down",
     "Nothing to do: it is tried again elsewhere."),
    ("pod_preempted", F.SERVICE, B.INFRA, "The Pod made room for a more important one",
     "Nothing to do: it is tried again."),
    ("pod_deleted", F.SERVICE, B.INFRA, "The Pod was deleted",
     "Cancel the job instead of deleting its Pod."),
    ("pod_rejected", F.SERVICE, B.INFRA, "The node rejected the Pod",
     "Nothing to do: it is tried again."),
    ("image_unavailable", F.SERVICE, B.CONFIG, "The worker image cannot be pulled",
     "Check the image's name and the registry's credentials."),
    ("pod_not_started", F.SERVICE, B.CONFIG, "The Pod did not start in time",
     "Read the Pod's events: a volume that cannot be mounted, a node that does not answer."),
    ("pod_invalid", F.SERVICE, B.CONFIG, "The Pod cannot be created as configured",
     "Check the pool's Pod template and what it names."),
    ("admission_denied", F.SERVICE, B.NONE, "A policy of the cluster denied the Pod",
     "Read the policy's message; change the pool's Pod template."),
    ("store_unavailable", F.SERVICE, B.INFRA, "The database did not answer",
     "Nothing to do: it is tried again."),
    ("abandoned", F.SERVICE, B.NONE, "The job was handed out again and again and never begun",
     "Look at the workers' logs, then redrive the dead letter."),
    # The caller
    ("canceled", F.CALLER, B.NONE, "The job was canceled",
     "Nothing to do."),
)  # fmt: skip


def kind_of(code: str) -> FailureKind:
    """
    The row of a code that came from elsewhere. One that this version does not know is treated as
    `worker_failed`: while an upgrade rolls out, workers of two versions report.
    """
    return FAILURES.get(code, FAILURES["worker_failed"])


class Failure(Model):
    """A failure as clients see it, in a job, an output or an attempt."""

    code: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    """Also one that the catalogue does not have: a worker may be newer."""
    fault: Fault
    message: Annotated[str, AfterValidator(lambda text: text[:MESSAGE_CHARACTERS])]
    """One sentence with the facts. Never a credential, never a whole URL. Of a worker that says
    more, the beginning: its report is worth more than the rest of a sentence."""
    hint: str
    retryable: bool
    output: Annotated[int, NOT_BOOLEAN] | None = None
    """The index of the output it concerns."""
    detail: str | None = None
    """The last lines of ffmpeg, redacted."""


def failure(
    code: str, message: str | None = None, *, output: int | None = None, detail: str | None = None
) -> Failure:
    """A failure of the catalogue. The code must be in it: a KeyError is a mistake of ours."""
    kind = FAILURES[code]
    return Failure(
        code=code,
        fault=kind.fault,
        message=message or f"{kind.title}.",
        hint=kind.hint,
        retryable=kind.retryable,
        output=output,
        detail=detail[-4096:] if detail else None,
    )


class Warned(Model):
    """Something a caller should know that did not stop the job."""

    code: str
    message: str
    output: Annotated[int, NOT_BOOLEAN] | None = None
    pointer: str | None = Field(default=None, description="JSON pointer into the request")
