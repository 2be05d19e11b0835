"""Alerts and dashboard speak of metrics that the code has, and each alert says what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import promql_parser
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from encoder_operator.metrics import Metrics
from tests.docs.render import DOCS, PARTS, ROOT

MONITORING = ROOT / "k8s" / "monitoring"
METRIC: Final = re.compile(r"\b(?:(?:encoder|transcode)_[a-z_]+|up)\b")
NAME: Final = re.compile(r"\b(?:encoder|transcode)_[a-z_]+\b")
MADE: Final = re.compile(
    r"(Counter|Gauge|Histogram|Summary|\w*MetricFamily)\(\s*\"((?:encoder|transcode)_[a-z_]+)\""
)
SERIES: Final = {
    "Counter": ["_total"],
    "CounterMetricFamily": ["_total"],
    "Histogram": ["_bucket", "_count", "_sum"],
    "HistogramMetricFamily": ["_bucket", "_count", "_sum"],
}
"""What a client adds to a metric's name."""


def metrics_of_the_code() -> set[str]:
    made = {
        found
        for part in PARTS
        for file in (ROOT / part).glob("encoder_*/**/*.py")
        for found in MADE.findall(file.read_text())
    }
    return {
        name.removesuffix("_total") + ending
        for kind, name in made
        for ending in SERIES.get(kind, [""])
    }


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    return [rule for group in document["spec"]["groups"] for rule in group["rules"]]


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])


@pytest.mark.parametrize("expression", [*expressions()])
def test_an_expression_is_promql(expression: str) -> None:
    promql_parser.parse(expression)


def test_what_is_no_promql_is_refused() -> None:
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        promql_parser.parse("sum by (pool) (rate(transcode_active[5m])")


def test_every_metric_that_is_looked_at_exists() -> None:
    named = {name for expression in expressions() for name in NAME.findall(expression)}
    assert named
    assert named - metrics_of_the_code() == set()


def test_every_metric_of_the_api_is_listed_and_no_line_is_left_over() -> None:
    page = (DOCS / "operations.md").read_text()
    lines = set(re.findall(r"^\| `(encoder_\w+)` \|", page, re.MULTILINE))
    of_a_histogram = re.compile(r"_(bucket|count|sum)$")
    told = {of_a_histogram.sub("", n) for n in metrics_of_the_code() if n.startswith("encoder_")}
    assert lines == told


def test_every_metric_of_the_operator_is_listed_with_its_labels() -> None:
    page = (DOCS / "operations.md").read_text()
    rows = re.findall(r"^\| `(transcode_\w+)` \| ([^|]*)\|", page, re.MULTILINE)
    listed = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    assert len(rows) == len(listed)
    assert listed == labels_of_the_operators_metrics()


def labels_of_the_operators_metrics() -> dict[str, set[str]]:
    """By the name under which it is told, without what a histogram adds to it."""
    found = {}
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            ending = "_total" if family.type == "counter" else ""
            found[family.name + ending] = set(metric._labelnames)
    return found


def test_the_dashboard_shows_what_each_alert_looks_at() -> None:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    shown = {name for expression in panels for name in METRIC.findall(expression)}
    for rule in rules():
        asked = set(METRIC.findall(rule["expr"]))
        assert asked, rule["alert"]
        assert asked - shown == set(), rule["alert"]


def test_panels_do_not_lie_over_each_other() -> None:
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24


def test_what_every_replica_tells_of_the_record_is_never_added_up() -> None:
    of_one_process = ("encoder_api_", "transcode_")
    for expression in expressions():
        if any(not name.startswith(of_one_process) for name in NAME.findall(expression)):
            assert "max" in expression or "sum" not in expression


def test_every_alert_has_a_line_of_what_to_do_and_no_line_is_left_over() -> None:
    page = (DOCS / "operations.md").read_text()
    lines = re.findall(r"^\| `(Encoder\w+)` \|", page, re.MULTILINE)
    assert sorted(lines) == sorted(rule["alert"] for rule in rules())


def test_every_alert_says_how_bad_it_is_and_what_it_means() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["for"]


def test_what_is_scraped_is_a_port_of_a_pod_of_ours() -> None:
    monitors = list(yaml.safe_load_all((MONITORING / "scrape.yaml").read_text()))
    for monitor in monitors:
        name = monitor["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"]
        documents = yaml.safe_load_all((ROOT / "k8s" / f"{name}.yaml").read_text())
        template = next(documents)["spec"]["template"]
        ports = {
            port["name"]
            for container in template["spec"]["containers"]
            for port in container.get("ports", [])
        }
        assert {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]} <= ports


def test_the_folder_is_complete() -> None:
    kustomization = yaml.safe_load((MONITORING / "kustomization.yaml").read_text())
    listed = set(kustomization["resources"]) | {"dashboard.json", "kustomization.yaml"}
    assert {path.name for path in Path(MONITORING).iterdir()} == listed


def test_what_an_alert_waits_for_can_be_told() -> None:
    """A quantile is never above the highest bucket that has a bound."""
    metrics, name = Metrics(), "transcode_result_record_lag_seconds"
    metrics.record_lag_s.labels("p").observe(100.0)
    buckets = {
        sample.labels["le"]: sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == f"{name}_bucket"
    }
    said = next(rule["expr"] for rule in rules() if name in rule["expr"])
    bound = float(said.rpartition("> ")[2])
    assert buckets[str(bound)] == 0
    assert any(count and le != "+Inf" for le, count in buckets.items())
