"""What docs/monitoring/ asks of a Prometheus: the queries of the dashboard and of the alert rules."""

import json
import re
import shutil
from collections.abc import Iterator
from functools import cache
from typing import Any

import promql_parser
import pytest
import yaml

from tests.documents import ROOT

MONITORING = ROOT / "docs" / "monitoring"
DASHBOARD = MONITORING / "dashboard.json"
ALERTS = MONITORING / "alerts.yml"
CONFIG = MONITORING / "prometheus.yml"
ALERT_CASES = ROOT / "tests" / "alert_cases.yml"
_VARIABLES = {"$__rate_interval": "1m", "$application": ".*", "$deployment": ".*"}
_LABEL_VALUES = re.compile(r"label_values\((.*), (\w+)\)")


@cache
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def panels() -> list[dict[str, Any]]:
    """Those with queries, without the rows that group them."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def panel_queries() -> list[str]:
    """As Grafana sends them when all applications and deployments are selected."""
    return [_filled_in(target["expr"]) for panel in panels() for target in panel["targets"]]


def variable_queries() -> list[tuple[str, str]]:
    """The selector and the label of each variable that offers the values of a label."""
    variables = [each for each in dashboard()["templating"]["list"] if each["type"] == "query"]
    matches = [_LABEL_VALUES.fullmatch(_filled_in(each["query"]["query"])) for each in variables]
    return [(match[1], match[2]) for match in matches if match]


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def expressions() -> list[str]:
    """Everything that is asked, as PromQL."""
    selectors = [selector for selector, _ in variable_queries()]
    return [*panel_queries(), *selectors, *(rule["expr"] for rule in alerts())]


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """Every selection of series in an expression. Raises ValueError if that is not PromQL."""
    return list(_selectors(promql_parser.parse(expression)))


def _selectors(node: Any) -> Iterator[promql_parser.VectorSelector]:
    match node:
        case promql_parser.VectorSelector():
            yield node
        case promql_parser.MatrixSelector():
            yield node.vector_selector
        case promql_parser.BinaryExpr():
            yield from _selectors(node.lhs)
            yield from _selectors(node.rhs)
        case promql_parser.Call():
            for argument in node.args:
                yield from _selectors(argument)
        case promql_parser.AggregateExpr() | promql_parser.ParenExpr() | promql_parser.UnaryExpr():
            yield from _selectors(node.expr)
        case promql_parser.NumberLiteral() | promql_parser.StringLiteral():
            return
        case _:
            raise ValueError(f"no test knows {type(node).__name__}")


def _filled_in(query: str) -> str:
    for name, value in _VARIABLES.items():
        query = query.replace(name, value)
    return query


def program(name: str) -> str:
    """The path of one of Prometheus' programs. Skips the test where it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"no `{name}` on the path: `apt-get install prometheus` lets the real one read what we publish")
    return path
