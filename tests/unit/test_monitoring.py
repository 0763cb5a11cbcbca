"""docs/monitoring/: the dashboard and the alerts ask only for what the mesh exports; alerts fire when they should."""

import json
import subprocess
from collections.abc import Container, Iterator
from itertools import combinations
from typing import Any

import grpc
import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from mesh.status import DeploymentStatus, GatewayStatus
from mesh.wire.telemetry import HISTOGRAM
from tests import documents, monitoring

EXTERNAL_LABELS = {"instance", "job"}
"""Prometheus adds them to every series."""
DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def series() -> dict[str, set[str]]:
    """The labels of every series that the mesh exports, by its name."""
    found: dict[str, set[str]] = {}
    for family in documents.families():
        labels = set(family.label_names)
        if family.kind == HISTOGRAM:
            found |= {f"{family.name}_{suffix}": labels for suffix in ("sum", "count")}
            found[f"{family.name}_bucket"] = labels | {"le"}
        else:
            found[family.name] = labels
    return found


@pytest.mark.parametrize("expression", monitoring.expressions())
def test_queries_ask_for_what_the_mesh_exports(expression: str) -> None:
    known = series()
    selectors = monitoring.selectors(expression)
    assert selectors
    for selector in selectors:
        assert selector.name in known, f"{expression}: nothing is called {selector.name}"
        unknown = {matcher.name for matcher in selector.matchers.matchers} - known[selector.name]
        assert not unknown, f"{expression}: {selector.name} has no label {', '.join(unknown)}"


@pytest.mark.parametrize("expression", monitoring.expressions())
def test_queries_group_by_labels_that_their_series_have(expression: str) -> None:
    tree = promql_parser.parse(expression)
    grouped = set(tree.modifier.labels) if isinstance(tree, promql_parser.AggregateExpr) and tree.modifier else set()
    for selector in monitoring.selectors(expression):
        assert grouped <= series()[selector.name] | EXTERNAL_LABELS


def test_queries_ask_for_values_that_their_labels_have() -> None:
    """An alert on a misspelt status would never fire."""
    known: dict[tuple[str, str], Container[str]] = {
        ("mesh_deployment_status", "status"): list(DeploymentStatus),
        ("mesh_gateways", "status"): list(GatewayStatus),
        ("mesh_gateway_grpc_requests_total", "code"): [each.name for each in grpc.StatusCode],
        ("mesh_gateway_http_requests_total", "status"): ["408", "5.."],
    }
    asked = [
        ((selector.name, matcher.name), value)
        for expression in monitoring.expressions()
        for selector in monitoring.selectors(expression)
        for matcher in selector.matchers.matchers
        for value in matcher.value.split("|")
        if value != ".*"
    ]
    assert {label for label, _ in asked} == known.keys()
    assert [(label, value) for label, value in asked if value not in known[label]] == []


def test_unknown_names_and_wrong_queries_are_found() -> None:
    assert [each.name for each in monitoring.selectors("rate(a_total[1m]) / on (x) sum(b) > 0")] == ["a_total", "b"]
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        monitoring.selectors("sum(a")


def test_the_dashboard_imports_without_edits() -> None:
    """The only thing to choose is the data source, which is a variable."""
    dashboard = monitoring.dashboard()
    assert "__inputs" not in dashboard
    assert "id" not in dashboard
    assert {each["name"]: each["type"] for each in dashboard["templating"]["list"]} == {
        "datasource": "datasource",
        "application": "query",
        "deployment": "query",
    }
    assert len(monitoring.variable_queries()) == 2
    asking = [
        *monitoring.panels(),
        *(target for panel in monitoring.panels() for target in panel["targets"]),
        *(each for each in dashboard["templating"]["list"] if each["type"] == "query"),
    ]
    assert [each for each in asking if each["datasource"] != DATA_SOURCE] == []


def test_grafana_knows_every_field_of_the_dashboard() -> None:
    """Its own library of types reads it, panels with their plugins' options and all, and writes the same again."""
    plugins.register_default_plugins()
    dashboard = monitoring.dashboard()
    known = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    assert [each for each in _unknown(dashboard, known) if not each.endswith(".definition")] == []


def _unknown(written: Any, known: Any, path: str = "") -> Iterator[str]:
    """The paths of what is in the first only. Grafana writes a `definition` that its library does not list."""
    match written:
        case dict():
            for name, value in written.items():
                if name in known:
                    yield from _unknown(value, known[name], f"{path}.{name}")
                else:
                    yield f"{path}.{name}"
        case list():
            for i, (one, other) in enumerate(zip(written, known, strict=True)):
                yield from _unknown(one, other, f"{path}[{i}]")
        case _ if written != known:
            yield path


def test_a_field_that_grafana_does_not_know_is_found() -> None:
    assert list(_unknown({"a": [{"b": 1, "c": 2}], "d": 3}, {"a": [{"b": 1}], "d": 4})) == [".a[0].c", ".d"]


def test_panels_have_a_place_and_an_id_of_their_own() -> None:
    panels = monitoring.dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    overlapping = [
        (one["title"], other["title"])
        for one, other in combinations(panels, 2)
        if _overlap(one["gridPos"], other["gridPos"])
    ]
    assert overlapping == []


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "w"), ("y", "h"))
    )


@pytest.mark.parametrize("rule", monitoring.alerts(), ids=lambda rule: str(rule["alert"]))
def test_every_alert_is_complete_and_explained(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description"}
    assert f"| `{rule['alert']}` |" in (documents.ROOT / "docs" / "monitoring.md").read_text()


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    cases = yaml.safe_load(monitoring.ALERT_CASES.read_text())["tests"]
    firing = {each["alertname"] for case in cases for each in case["alert_rule_test"] if each.get("exp_alerts")}
    assert firing == {rule["alert"] for rule in monitoring.alerts()}


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", monitoring.ALERTS),
        ("check", "config", monitoring.CONFIG),
        ("test", "rules", monitoring.ALERT_CASES),
    ],
    ids=lambda arguments: " ".join(map(str, arguments[:2])),
)
def test_promtool_accepts_it(arguments: tuple[Any, ...]) -> None:
    command = [monitoring.program("promtool"), *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
