"""New credentials for a job that is under way."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from starlette.responses import Response

from encoder_api.auth import visible_owner
from encoder_api.contract import Call, Reply, Scope, answer, operation
from encoder_api.endpoints.jobs import job_ref, pointing_into_body, revealed
from encoder_core.documents import JobDocument
from encoder_core.model import Model, RenewedSecret
from encoder_db import jobs as db_jobs


class NewCredentials(Model):
    credentials: Annotated[dict[str, RenewedSecret], Field(min_length=1)]
    """By JSON pointer into the job's request, such as `/source/access_key_secret`."""


@operation(
    "PATCH",
    "/jobs/{id}/credentials",
    tag="jobs",
    scope=Scope.JOBS_WRITE,
    body=NewCredentials,
    refuses=("job_final", "credentials_required"),
    replies={200: Reply(says="The job as it is.", model=JobDocument, names_job=True)},
    examples={"A new key": {"credentials": {"/source/access_key_secret": "wJalrXUtnFEMI"}}},
)
def renew_credentials(call: Call[NewCredentials, None]) -> Response:
    """
    Replace credentials of a job that has not ended.

    Its next attempt uses them; one that runs goes on with what it has. Those that are not named
    stay. A job that has ended takes new ones with a retry.
    """
    with pointing_into_body():
        job = db_jobs.renew_credentials(
            call.services.store,
            job_ref(call.request),
            owner=visible_owner(call.principal),
            secrets=revealed(call.body.credentials),
        )
    return answer(job)
