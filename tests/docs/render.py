"""
Write what the documentation repeats of the code: `python -m tests.docs.render` after a change.

Only what stands between `<!-- begin: name -->` and `<!-- end: name -->` is written; the text around
it is people's. test_docs.py compares, so a page cannot fall behind.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path

from pydantic import AliasChoices, SecretStr
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from encoder_api.endpoints import OPERATIONS
from encoder_api.endpoints.jobs import JobQuery
from encoder_api.problems import PROBLEMS
from encoder_api.webhooks.schedule import PLANNED_S
from encoder_core import events
from encoder_core.deliveries import Outcome
from encoder_core.failures import FAILURES, Budget, Fault, kind_of
from encoder_core.media.warnings import WARNINGS
from encoder_core.retries import Retry, RetryLimits, decide_retry
from encoder_core.states import FINAL_JOB, JOB_TRANSITIONS, AttemptStatus, JobStatus, OutputStatus
from encoder_db.invariants import CHECKS, LEFT_BEHIND
from encoder_operator.act import REFUSAL_RULES
from encoder_operator.exits import END_RULES, WAIT_RULES
from tests.cluster import times

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PARTS = ("api", "operator", "worker-image")


# --- Settings ----------------------------------------------------------------------------------


def settings_classes() -> list[type[BaseSettings]]:
    """Every settings class with fields, of every module called `settings`, by where it is."""
    return [
        value
        for module in settings_modules()
        for value in vars(importlib.import_module(module)).values()
        if inspect.isclass(value)
        and issubclass(value, BaseSettings)
        and value.__module__ == module
        and value.model_fields
    ]


def settings_modules() -> list[str]:
    files = [file for part in PARTS for file in (ROOT / part).glob("encoder_*/**/settings.py")]
    return sorted(module_of(file) for file in files)


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts[1:])


def variable_of(cls: type[BaseSettings], name: str, field: FieldInfo) -> str:
    """The environment variable that sets a field."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        (choice,) = alias.choices
        return str(choice)
    return str(alias or f"{cls.model_config['env_prefix']}{name}".upper())


def all_variables() -> list[str]:
    """Each variable once, in the order of the classes; two classes may read the same one."""
    names = [
        variable_of(cls, name, field)
        for cls in settings_classes()
        for name, field in cls.model_fields.items()
    ]
    return list(dict.fromkeys(names))


def render_settings() -> str:
    return "\n\n".join(render_class(cls) for cls in settings_classes())


def render_class(cls: type[BaseSettings]) -> str:
    said = docstrings_of(cls)
    rows = [
        f"| `{variable_of(cls, name, field)}` | {default_of(field)} | {said.get(name, '')} |"
        for name, field in cls.model_fields.items()
    ]
    title = re.sub(r"(?<!^)(?=[A-Z])", " ", cls.__name__).removesuffix(" Settings")
    intro = inspect.cleandoc(cls.__doc__ or "").replace("\n", " ")
    head = "| variable | default | what it buys |\n|---|---|---|"
    return f"## {title}\n\n{intro}\n\n{head}\n" + "\n".join(rows)


def default_of(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "see right"
    value = field.default
    if value is PydanticUndefined:
        return "**needed**"
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, SecretStr) or value in (None, ()):
        return "none"
    if isinstance(value, bool):
        value = str(value).lower()
    return f"`{value}`"


def docstrings_of(cls: type) -> dict[str, str]:
    """The string below each attribute, on one line."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(node, ast.ClassDef)
    found: dict[str, str] = {}
    for statement, following in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            found[statement.target.id] = inspect.cleandoc(following.value.value).replace("\n", " ")
    return found


# --- Failures and states -------------------------------------------------------------------------


def render_failures() -> str:
    lines: list[str] = []
    for fault in Fault:
        lines += [f"## {fault.value.capitalize()}", "", comments_of(Fault)[fault.name], ""]
        lines += ["| code | what happened | tried again | what to do |", "|---|---|---|---|"]
        lines += [
            f"| `{kind.code}` | {kind.title} | {AGAIN[kind.budget]} | {kind.hint} |"
            for kind in FAILURES.values()
            if kind.fault is fault
        ]
        lines += [""]
    return "\n".join(lines).rstrip()


AGAIN: Mapping[Budget, str] = {
    Budget.APP: "yes (app)",
    Budget.INFRA: "yes (infra)",
    Budget.CAPACITY: "waits for room",
    Budget.CONFIG: "a few times (config)",
    Budget.NONE: "no",
}


def render_warnings() -> str:
    rows = [f"| `{code}` | {meaning} |" for code, meaning in WARNINGS.items()]
    return "\n".join(["| code | what happens |", "|---|---|", *rows])


def render_budgets() -> str:
    rows = [f"| {b.value} | {AGAIN[b]} | {comments_of(Budget)[b.name]} |" for b in Budget]
    return "\n".join(["| budget | in the tables | meaning |", "|---|---|---|", *rows])


def render_retries() -> str:
    limits = RetryLimits()
    attempts = {
        Budget.APP: "`QUEUE_MAX_ATTEMPTS`",
        Budget.INFRA: str(limits.infra),
        Budget.CONFIG: str(limits.config),
    }
    rows = [
        f"| {budget.value} | {attempts.get(budget, 'any number')} | {_pauses_of(budget)} |"
        for budget in Budget
        if budget is not Budget.NONE
    ]
    head = "| budget | attempts in all | the job waits before the next |"
    return "\n".join([head, "|---|---|---|", *rows])


def _pauses_of(budget: Budget) -> str:
    """Until they grow no more."""
    code = next(kind.code for kind in FAILURES.values() if kind.budget is budget)
    unlimited = RetryLimits(app=100, infra=100, config=100)
    pauses: list[float] = []
    while len(pauses) < 2 or pauses[-1] != pauses[-2]:
        decided = decide_retry(code, {budget: len(pauses) + 1}, limits=unlimited, jitter=0.0)
        assert isinstance(decided, Retry)
        pauses.append(decided.after_s)
    *growing, longest = [f"{pause:g} s" for pause in pauses[:-1]]
    return f"{', '.join(growing)}, then {longest} each time"


def render_enum(cls: type[Enum]) -> str:
    said = comments_of(cls)
    rows = [f"| `{member.value}` | {said[member.name]} |" for member in cls]
    return "\n".join(["| status | meaning |", "|---|---|", *rows])


def render_transitions() -> str:
    lines = ["| from | to |", "|---|---|"]
    for status, after in JOB_TRANSITIONS.items():
        ordered = [f"`{s.value}`" for s in JobStatus if s in after]
        final = " (final)" if status in FINAL_JOB else ""
        lines.append(f"| `{status.value}`{final} | {', '.join(ordered) or 'nothing'} |")
    return "\n".join(lines)


def render_rules() -> str:
    rows = [f"| `{check.name}` | {check.rule} | {check.repair} |" for check in CHECKS]
    rows += [f"| `{name}` | {rule} | {repair} |" for name, rule, repair in LEFT_BEHIND]
    return "\n".join(["| rule | what must hold | what its repair does |", "|---|---|---|", *rows])


# --- Pods ----------------------------------------------------------------------------------------


def render_ends() -> str:
    lines = ["| the Pod | what it means | tried again |", "|---|---|---|"]
    for rule in END_RULES:
        if rule.code is None:
            means, again = "what the worker's final report and exit code say", ""
        else:
            means, again = f"`{rule.code}`", AGAIN[kind_of(rule.code).budget]
        lines.append(f"| {rule.looks} | {means} | {again} |")
    return "\n".join(lines)


def render_waits() -> str:
    rows = [f"| {rule.looks} | `{rule.code}` | {rule.bears} |" for rule in WAIT_RULES]
    return "\n".join(["| the Pod | what it is | borne for |", "|---|---|---|", *rows])


def render_refusals() -> str:
    lines = ["| the API server says | what it means | tried again |", "|---|---|---|"]
    for rule in REFUSAL_RULES:
        means = f"`{rule.code}`" if rule.code else "nothing: the attempt has not begun"
        again = AGAIN[kind_of(rule.code).budget] if rule.code else "the same attempt is"
        lines.append(f"| {rule.looks} | {means} | {again} |")
    return "\n".join(lines)


# --- The API -------------------------------------------------------------------------------------


def render_operations() -> str:
    rows = [
        f"| `{operation.method} {operation.path}` | {SCOPES[operation.scope]} "
        f"| {operation.summary} |"
        for operation in OPERATIONS
        if not operation.path.startswith("/internal/")
    ]
    return "\n".join(["| request | scope | what it does |", "|---|---|---|", *rows])


SCOPES: Mapping[str | None, str] = {
    "jobs:read": "`jobs:read`",
    "jobs:write": "`jobs:write`",
    "admin": "`admin`",
    None: "none",
}


def render_job_filters() -> str:
    said = docstrings_of(JobQuery)
    rows = [f"| `{to_camel(name)}` | {said[name]} |" for name in JobQuery.model_fields]
    return "\n".join(["| parameter | meaning |", "|---|---|", *rows])


def render_problems() -> str:
    rows = [f"| `{kind.code}` | {kind.status} | {kind.title} |" for kind in PROBLEMS.values()]
    return "\n".join(["| code | status | what it says |", "|---|---|---|", *rows])


# --- Webhooks ------------------------------------------------------------------------------------


def render_event_types() -> str:
    told = re.findall(r' = "([a-z.]+)"  #: (.+)$', inspect.getsource(events), re.MULTILINE)
    of_status = comments_of(JobStatus)
    said = dict(told) | {events.job_event(status): of_status[status.name] for status in JobStatus}
    rows = [f"| `{name}` | {said[name]} |" for name in events.EVENT_TYPES]
    return "\n".join(["| `type` | what has become of the job |", "|---|---|", *rows])


def render_webhook_outcomes() -> str:
    said = comments_of(Outcome)
    rows = [
        f"| `{one.value}` | {said[one.name]} | {FOLLOWS.get(one, 'tried again')} |"
        for one in Outcome
    ]
    return "\n".join(["| outcome | what happened | what follows |", "|---|---|---|", *rows])


FOLLOWS: Mapping[Outcome, str] = {
    Outcome.DELIVERED: "the job's next event",
    Outcome.GONE: "no more webhooks of this job",
    Outcome.SUPERSEDED: "the job's end",
    Outcome.TARGET_LOST: "the job's next event",
}


def render_webhook_schedule() -> str:
    rows, so_far_s = [], 0.0
    for number, pause_s in enumerate(PLANNED_S, start=1):
        so_far_s += pause_s
        rows.append(f"| {number} | {span(pause_s)} | {span(so_far_s)} |")
    head = "| attempt | pause before it | since the event, in all |"
    return "\n".join([head, "|---|---|---|", *rows])


def span(seconds: float) -> str:
    """As people say it: `5 s`, `2 h 35 min`; seconds only where they count."""
    if not seconds:
        return "none"
    minutes, rest_s = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest_s} s"
    hours, minutes = divmod(minutes, 60)
    return " ".join([*([f"{hours} h"] if hours else []), *([f"{minutes} min"] if minutes else [])])


def comments_of(cls: type[Enum]) -> dict[str, str]:
    """What stands behind `#:` beside each value."""
    found = re.findall(r"^\s+(\w+) = .*?#:\s*(.+)$", inspect.getsource(cls), re.MULTILINE)
    return dict(found)


# --- Pages ---------------------------------------------------------------------------------------

BLOCKS: Mapping[str, Callable[[], str]] = {
    "settings": render_settings,
    "failures": render_failures,
    "warnings": render_warnings,
    "budgets": render_budgets,
    "retries": render_retries,
    "job statuses": lambda: render_enum(JobStatus),
    "output statuses": lambda: render_enum(OutputStatus),
    "attempt statuses": lambda: render_enum(AttemptStatus),
    "job transitions": render_transitions,
    "rules of the record": render_rules,
    "pod ends": render_ends,
    "pod waits": render_waits,
    "refusals": render_refusals,
    "stated times": times.render,
    "operations": render_operations,
    "job filters": render_job_filters,
    "problems": render_problems,
    "event types": render_event_types,
    "webhook outcomes": render_webhook_outcomes,
    "webhook schedule": render_webhook_schedule,
}
BLOCK = re.compile(r"(<!-- begin: ([a-z ]+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)


def rendered(text: str) -> str:
    """A page with its blocks as the code has them now."""

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}\n{BLOCKS[match[2]]()}\n\n{match[3]}"

    return BLOCK.sub(fill, text)


def pages() -> Iterator[Path]:
    yield from sorted(DOCS.glob("*.md"))


def main() -> None:
    for page in pages():
        before = page.read_text()
        after = rendered(before)
        if after != before:
            page.write_text(after)
            print(f"{page.relative_to(ROOT)} written")


if __name__ == "__main__":
    main()
