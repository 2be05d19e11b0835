"""
Whatever the OpenAPI document allows is answered as it says, and what it forbids is refused.

schemathesis makes the requests and judges the answers. FUZZ_EXAMPLES and FUZZ_SEED ask for more,
and for others: `make fuzz`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from pydantic import SecretStr
from schemathesis.config import SchemathesisConfig
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from sqlalchemy import delete
from starlette.applications import Starlette

from encoder_api.app import create_app, openapi_document
from encoder_api.endpoints import OPERATIONS
from encoder_api.problems import PROBLEMS
from encoder_api.settings import ApiSettings
from encoder_db.store import Store
from encoder_db.tables import metadata
from tests.api.conftest import KEYS

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
BEYOND_A_SCHEMA: Final = {
    "submit_job": "what fits together, such as a container and its codecs",
    "plan_job": "the same",
    "probe_source": "credentials come whole",
    "take_report": "reports are the worker's own, and told apart by their type",
    "list_jobs": "cursors are signed, and moments are of this century",
    "list_dead_letters": "cursors are signed",
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


def judge(case: Any, response: Any) -> None:
    name = case.operation.definition.raw["operationId"]
    excused = [positive_data_acceptance] if name in BEYOND_A_SCHEMA else []
    case.validate_response(response, headers=HEADERS, excluded_checks=excused)
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


def test_what_one_answer_names_another_request_finds(app: Starlette, schema: Any) -> None:
    store: Store = app.state.services.store

    class Workflow(schema.as_state_machine()):  # type: ignore[misc]  # made at run time
        def setup(self) -> None:
            # Hypothesis asks that the same steps come to the same, whatever was done before them.
            super().setup()
            with store.begin() as tx:
                for table in reversed(metadata.sorted_tables):
                    if table.name == "pools":
                        tx.execute(delete(table).where(table.c.name != "default"))
                    else:
                        tx.execute(delete(table))

        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"headers": HEADERS}

        def validate_response(self, response: Any, case: Any, **_: Any) -> None:
            judge(case, response)

    Workflow.run(settings=settings(FUZZ, stateful_step_count=6))
