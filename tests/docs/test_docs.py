"""The pages say what the code says: settings, failures, states, links, variables, commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from encoder_core.failures import FAILURES, Budget
from encoder_core.retries import Retry, RetryLimits, decide_retry
from encoder_db.fairness import STARVATION_TURN
from encoder_operator.exits import WAIT_RULES
from encoder_operator.status import reason_of
from tests.docs.render import (
    BLOCK,
    BLOCKS,
    DOCS,
    PARTS,
    ROOT,
    all_variables,
    docstrings_of,
    pages,
    rendered,
    settings_classes,
    settings_modules,
    span,
)

OF_OTHERS = {"NODE_ENV"}  # of old set-ups; no settings class reads it
OF_THE_ORIGINAL = {
    *("NODE_ENV", "PORT", "MYSQL_HOST", "MYSQL_PORT", "MYSQL_USER", "MYSQL_PASSWORD"),
    *("MYSQL_DATABASE", "QUEUE_POLL_INTERVAL_MS", "QUEUE_VISIBILITY_TIMEOUT_MS"),
    *("QUEUE_MAX_ATTEMPTS", "RETENTION_HOURS", "AWS_REGION", "AWS_ACCESS_KEY_ID"),
    "AWS_SECRET_ACCESS_KEY",
}
MARKDOWN = sorted(
    [*ROOT.glob("*.md"), *DOCS.glob("**/*.md")], key=lambda path: path.relative_to(ROOT).as_posix()
)
ALL_PAGES = [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in MARKDOWN]


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in pages()])
def test_what_a_page_repeats_of_the_code_is_current(page: Path) -> None:
    """If not: `python -m tests.docs.render`."""
    assert page.read_text() == rendered(page.read_text())


def test_every_block_has_its_page() -> None:
    named = {match[2] for page in pages() for match in BLOCK.finditer(page.read_text())}
    assert named == set(BLOCKS)


@pytest.mark.parametrize(
    "cls", [pytest.param(cls, id=cls.__qualname__) for cls in settings_classes()]
)
def test_every_setting_says_what_it_buys(cls: type) -> None:
    fields = getattr(cls, "model_fields")  # noqa: B009 - a type has no such attribute to mypy
    assert set(docstrings_of(cls)) == set(fields)


@pytest.mark.parametrize(
    "cls", [pytest.param(cls, id=cls.__qualname__) for cls in settings_classes()]
)
def test_a_variable_that_is_empty_is_one_that_is_not_set(cls: type[BaseSettings]) -> None:
    """`--from-env-file` makes an empty key of `NAME=`, and Compose an empty variable."""
    assert cls.model_config["env_ignore_empty"] is True
    assert cls.model_config["frozen"] is True


def test_settings_are_where_the_documentation_looks_for_them() -> None:
    holders = {
        file.relative_to(ROOT).as_posix()
        for part in PARTS
        for file in (ROOT / part).glob("encoder_*/**/*.py")
        if re.search(r"^class \w+\((Base)?Settings\)", file.read_text(), re.MULTILINE)
    }
    assert all(holder.endswith("/settings.py") for holder in holders)
    assert len(settings_modules()) == len(holders)


# --- .env.example ------------------------------------------------------------------------------


def example_variables() -> list[str]:
    text = (ROOT / ".env.example").read_text()
    return re.findall(r"^#?([A-Z][A-Z0-9_]+)=", text, re.MULTILINE)


def test_the_example_has_every_variable_once_and_no_other() -> None:
    names = example_variables()
    assert len(names) == len(set(names))
    assert set(names) == set(all_variables()) | OF_OTHERS


def test_the_example_has_every_variable_of_the_original() -> None:
    assert set(example_variables()) >= OF_THE_ORIGINAL


def test_the_example_says_in_so_many_words_that_it_is_open_and_what_to_do_instead() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    at = lines.index("ENCODER_AUTH=off")
    assert "ENCODER_API_KEY" in " ".join(lines[at - 2 : at])


def test_every_line_of_the_example_is_one_that_docker_and_a_shell_read_alike() -> None:
    for line in (ROOT / ".env.example").read_text().splitlines():
        assert not line or line.startswith("#") or re.fullmatch(r"[A-Z][A-Z0-9_]*=[\w./:@-]*", line)


# --- Kubernetes ----------------------------------------------------------------------------------


def test_every_reason_that_the_guide_explains_is_one_that_is_written() -> None:
    text = (DOCS / "kubernetes.md").read_text()
    first_cells = re.findall(r"^\| ([^|]*`[^|]*) \|", text, re.MULTILINE)
    words = {word for cell in first_cells for word in re.findall(r"`([A-Za-z_]+)`", cell)}
    written = set(re.findall(r'"([A-Z][A-Za-z]+)"', code_that_writes_reasons()))
    known = written | {reason_of(code) for code in FAILURES} | set(FAILURES)
    of_kubectl = {"SUCCEEDED", "Running", "queued", "transcodejobs", "transcodepools", "events"}
    assert words - of_kubectl - {"pods", "secrets", "credentialsSecretRef"} <= known
    assert len(words & known) > 15


def test_every_reason_for_which_a_job_waits_is_in_the_guide() -> None:
    text = (DOCS / "kubernetes.md").read_text().partition("## Why does my job not run?")[2]
    waits = (ROOT / "api" / "encoder_db" / "waiting.py").read_text()
    reasons = set(re.findall(r'reason="(\w+)"', waits))
    reasons |= {reason_of(rule.code) for rule in WAIT_RULES}
    reasons |= {"StoreUnavailable", "PodNotStarted", "CredentialsMissing", "NotOurs", "SpecInvalid"}
    reasons |= {"PreviousEnding", "PoolNotFound"}
    assert len(reasons) > 12
    assert {reason for reason in reasons if f"`{reason}`" not in text} == set()


def code_that_writes_reasons() -> str:
    operator = ROOT / "operator" / "encoder_operator"
    modules = [
        operator / f"{name}.py"
        for name in ("status", "poolstatus", "events", "act", "decide", "identity")
    ]
    modules.append(ROOT / "api" / "encoder_db" / "waiting.py")
    return "\n".join(module.read_text() for module in modules)


# --- Whose turn it is ----------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["states.md", "architecture.md"])
def test_a_page_says_how_often_a_claim_begins_with_the_lowest_priority(page: str) -> None:
    said = re.findall(r"[Ee]very\s+(\w+)\s+claim", (DOCS / page).read_text())
    assert said == [{6: "sixth", 7: "seventh", 8: "eighth", 9: "ninth"}[STARVATION_TURN]]


# --- When a failure is tried again ---------------------------------------------------------------


def test_the_page_of_failures_says_how_long_who_asked_for_it_may_hold_up_a_job() -> None:
    code = next(kind.code for kind in FAILURES.values() if kind.budget is Budget.CAPACITY)
    asked = decide_retry(
        code, {Budget.CAPACITY: 1}, limits=RetryLimits(), jitter=0.0, retry_after_s=1e9
    )
    assert isinstance(asked, Retry)
    assert f"Retry-After, up to {span(asked.after_s)})" in (DOCS / "failures.md").read_text()


# --- All pages -----------------------------------------------------------------------------------


def links(page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in target and not target.startswith("#"):
            yield target.partition("#")[0]


@pytest.mark.parametrize("page", ALL_PAGES)
def test_every_link_leads_somewhere(page: Path) -> None:
    missing = [target for target in links(page) if not (page.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("page", ALL_PAGES)
def test_every_variable_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"`((?:ENCODER|MYSQL|QUEUE|RETENTION)_[A-Z0-9_]+)", page.read_text()))
    assert named - set(all_variables()) == set()


@pytest.mark.parametrize("page", ALL_PAGES)
def test_every_make_target_and_command_that_a_page_names_exists(page: Path) -> None:
    from encoder_cli.__main__ import app

    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", text)) - targets == set()
    commands = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    commands |= {str(group.name) for group in app.registered_groups}
    assert set(re.findall(r"`encoder ([a-z]+)", text)) - commands == set()


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=page.name) for page in sorted((DOCS / "decisions").glob("*.md"))],
)
def test_a_decision_says_why_what_it_costs_and_what_else_there_was(page: Path) -> None:
    text = page.read_text()
    assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", page.name)
    assert text.startswith(f"# {int(page.name[:4])}. ")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["Context", "Decision", "Cost", "Alternatives"]
    assert len(text.split()) <= 350, "half a page"
