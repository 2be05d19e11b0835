"""
Whatever the OpenAPI document allows is answered as it says, and what it forbids is refused.

schemathesis makes the requests and judges the answers. FUZZ_EXAMPLES and FUZZ_SEED ask for more,
and for others: `make fuzz`.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.stateful import initialize
from pydantic import SecretStr
from schemathesis.config import SchemathesisConfig
from schemathesis.generation import GenerationMode
from schemathesis.generation.stateful.state_machine import StepInput
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from sqlalchemy import select
from starlette.applications import Starlette

from encoder_api.app import create_app, openapi_document
from encoder_api.endpoints import OPERATIONS
from encoder_api.problems import PROBLEMS
from encoder_api.settings import ApiSettings
from encoder_db.keys import create_key
from encoder_db.store import Store
from encoder_db.tables import metadata
from tests.api.conftest import KEYS
from tests.api.samples import job
from tests.db.conftest import empty

EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "6"))
SEED: Final = int(os.environ.get("FUZZ_SEED", "1"))
KEY: Final = "a-first-key"
HEADERS: Final = {"Authorization": f"Bearer {KEY}"}
FUZZ: Final = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    # Shrinking would say the same thing in fewer bytes, for minutes.
    phases=(Phase.explicit, Phase.generate),
)
NAMES: Final = [operation.name for operation in OPERATIONS]
TAKES_SOMETHING: Final = {
    inner["operationId"]
    for path in openapi_document()["paths"].values()
    for inner in path.values()
    if inner.get("parameters") or "requestBody" in inner
}
GUARDED: Final = [operation.name for operation in OPERATIONS if operation.scope is not None]
OF_A_JOB: Final = [o.name for o in OPERATIONS if o.path.startswith("/jobs/{id}")]
BEYOND_A_SCHEMA: Final = {
    "submit_job": "what fits together, such as a container and its codecs",
    "plan_job": "the same",
    "renew_credentials": "they are named by their place in the job's own request",
    "retry_job": "the same",
    "probe_source": "credentials come whole",
    "take_report": "reports are the worker's own, and told apart by their type",
    "list_jobs": "cursors are signed, and moments are of this century",
    "list_dead_letters": "cursors are signed",
    "list_job_webhooks": "the same",
}
"""Operations with rules that JSON Schema cannot say: to refuse what it allows is no lie there."""


@pytest.fixture(scope="module")
def app(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starlette]:
    path = tmp_path_factory.mktemp("fuzz") / "encoder.db"
    shutil.copy(migrated, path)
    made = ApiSettings(api_key=SecretStr(KEY), rate_limit_per_s=0)
    with Store.open(f"sqlite:///{path}", keys=KEYS) as store:
        yield create_app(made, store)


@pytest.fixture(scope="module")
def schema(app: Starlette) -> Any:
    config = SchemathesisConfig.from_dict({"seed": SEED})
    return schemathesis.openapi.from_asgi("/openapi.json", app, config=config)


def judge(case: Any, response: Any, headers: Mapping[str, str] = HEADERS) -> None:
    name = case.operation.definition.raw["operationId"]
    excused = [positive_data_acceptance] if name in BEYOND_A_SCHEMA else []
    if response.status_code == 413:
        excused.append(negative_data_rejection)  # it is one, though not in the tool's list
    case.validate_response(response, headers=dict(headers), excluded_checks=excused)
    if response.headers.get("content-type", [""])[0] == "application/problem+json":
        assert response.json()["type"].removeprefix("urn:encoder:problem:") in PROBLEMS


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        pytest.param(name, mode, id=f"{name}, {mode.value} requests")
        for name in NAMES
        for mode in GenerationMode
        if mode.is_positive or name in TAKES_SOMETHING
    ],
)
def test_an_operation_keeps_its_word(name: str, mode: GenerationMode, schema: Any) -> None:
    chosen = schema.include(operation_id=name)

    @seed(SEED)
    @FUZZ
    @given(case=chosen.as_strategy(generation_mode=mode))
    def attempt(case: Any) -> None:
        judge(case, case.call(headers=HEADERS))

    attempt()


# --- Who may not ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="without a key"),
        pytest.param({"Authorization": "Bearer enc_wrong"}, id="with a wrong key"),
    ],
)
@pytest.mark.parametrize("name", GUARDED)
def test_without_a_key_nothing_is_done(
    name: str, headers: dict[str, str], schema: Any, app: Starlette
) -> None:
    assert refusals(schema, app, name, headers) == {(401, "unauthorized")}


@pytest.mark.parametrize(
    ("name", "scopes"),
    [
        pytest.param(operation.name, scopes, id=f"{operation.name} with {' and '.join(scopes)}")
        for operation in OPERATIONS
        if operation.scope is not None
        for scopes in [[scope for scope in ("jobs:read", "jobs:write") if scope != operation.scope]]
    ],
)
def test_with_a_key_of_smaller_scope_nothing_is_done(
    name: str, scopes: list[str], schema: Any, app: Starlette
) -> None:
    headers = key_of(app, "somebody", scopes)
    assert refusals(schema, app, name, headers) == {(403, "forbidden")}


@pytest.mark.parametrize("name", OF_A_JOB)
def test_to_a_job_of_another_owner_nothing_is_done(name: str, schema: Any, app: Starlette) -> None:
    headers = key_of(app, "somebody", ["jobs:read", "jobs:write"])
    refused = refusals(schema, app, name, headers)
    # A body that is wrong is so whosever job it is for.
    assert refused
    assert refused <= {(404, "not_found"), (422, "invalid_request"), (400, "malformed_body")}


def refusals(
    schema: Any, app: Starlette, name: str, headers: dict[str, str]
) -> set[tuple[int, str]]:
    """Status and code of each answer to an operation, on a job that exists; nothing may change."""
    on = call(schema, "submit_job", body=job()).json()["uuid"]
    before = rows_of(app)
    seen = set()

    @seed(SEED)
    @settings(FUZZ, max_examples=max(2, EXAMPLES // 3))
    @given(case=schema.include(operation_id=name).as_strategy())
    def attempt(case: Any) -> None:
        if "id" in case.path_parameters:
            case.path_parameters["id"] = on
        response = case.call(headers=headers)
        judge(case, response, headers)
        assert on not in response.text
        code = response.json()["type"].removeprefix("urn:encoder:problem:")
        seen.add((response.status_code, code))

    attempt()
    assert rows_of(app) == before
    return seen


def key_of(app: Starlette, owner: str, scopes: list[str]) -> dict[str, str]:
    store: Store = app.state.services.store
    key = store.run(lambda tx: create_key(tx, name="fuzz", owner=owner, scopes=scopes))
    return {"Authorization": f"Bearer {key}"}


def rows_of(app: Starlette) -> dict[str, list[Any]]:
    store: Store = app.state.services.store
    with store.read() as tx:
        return {
            table.name: [tuple(row) for row in tx.execute(select(table))]
            for table in metadata.sorted_tables
            if table.name != "api_keys"  # these say when they were used
        }


def call(schema: Any, name: str, **parts: Any) -> Any:
    """An operation by its name, with the first key."""
    found = schema.find_operation_by_id(name)
    if "body" in parts:
        parts["media_type"] = "application/json"
    case = found.Case(**parts)
    response = case.call(headers=HEADERS)
    judge(case, response)
    return response


# --- One after the other -------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["submit_job", "probe_source"])
def test_a_jobs_life_by_the_links_of_the_document(first: str, schema: Any, app: Starlette) -> None:
    """Each step takes the job's name from the answer before, as the document says."""
    document = openapi_document()
    links = document["components"]["links"]
    replies = {
        inner["operationId"]: inner["responses"]
        for path in document["paths"].values()
        for inner in path.values()
    }
    assert set(links) == set(OF_A_JOB) - {"redeliver_event"}

    def follow(before: str, answer: Any, name: str) -> Any:
        offered = replies[before][str(answer.status_code)]["links"]
        assert offered[name] == {"$ref": f"#/components/links/{name}"}
        assert links[name]["parameters"] == {"id": "$response.body#/uuid"}
        return call(schema, name, path_parameters={"id": answer.json()["uuid"]})

    source = {"kind": "https", "url": "https://example.com/in.mp4"}
    body = job() if first == "submit_job" else {"source": source}
    made = answer = call(schema, first, body=body)
    last, walked = first, []
    for name in [
        *("read_job", "bump_job", "list_job_events", "list_job_outputs", "list_job_attempts"),
        *("list_job_webhooks", "cancel_job", "read_job", "retry_job", "cancel_job", "delete_job"),
    ]:
        following = follow(last, answer, name)
        walked.append((name, following.status_code))
        if "links" in replies[name].get(str(following.status_code), {}):
            last, answer = name, following
    assert walked == [
        *(("read_job", 200), ("bump_job", 200), ("list_job_events", 200)),
        *(("list_job_outputs", 200), ("list_job_attempts", 200), ("list_job_webhooks", 200)),
        *(("cancel_job", 200), ("read_job", 200), ("retry_job", 202), ("cancel_job", 200)),
        ("delete_job", 200),
    ]
    for name in set(links) - {"renew_credentials"}:
        assert follow(first, made, name).status_code == 404


def test_what_one_answer_names_another_request_finds(app: Starlette, schema: Any) -> None:
    store: Store = app.state.services.store
    machine = schema.as_state_machine()
    found: Counter[str] = Counter()
    """How often an operation was asked about a job, and there was one."""

    class Workflow(machine):  # type: ignore[misc, valid-type]  # made at run time
        def setup(self) -> None:
            # Hypothesis asks that the same steps come to the same, whatever was done before them;
            # a default pool that was left draining, say, takes no job.
            super().setup()
            empty(store.engine)

        @initialize(target=machine.bundles["POST /jobs -> 202"])
        def submit(self) -> Any:
            # Drawn ones seldom fit together, and without a job nothing is found.
            request = schema.find_operation_by_id("submit_job").Case(
                body=job(), media_type="application/json"
            )
            begin = StepInput.initial(request)
            self.recorder.record_case(case=request)
            self.control.record_step(begin, self.recorder)
            return self._step(begin)

        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"headers": HEADERS}

        def validate_response(self, response: Any, case: Any, **_: Any) -> None:
            judge(case, response)
            name = case.operation.definition.raw["operationId"]
            if name in OF_A_JOB and response.status_code != 404:
                found[name] += 1

    seed(SEED)(Workflow)
    Workflow.run(settings=settings(FUZZ, stateful_step_count=8))
    assert len(found) >= 3, found
