"""The policy in docs/autoscaling.md that asks Prometheus, with what a Prometheus answers."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.error import URLError
from urllib.parse import parse_qs, urlsplit

import pytest

import mesh
from mesh.options.deployments.autoscaling_policy import read_context
from mesh.v1 import control_pb2
from tests.documents import ROOT, blocks_of

VECTORS = {"sum(waiting)": ["11"], "waiting": ["4", "7.5"], "absent": []}


class Prometheus(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path, (query,) = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)["query"]
        assert path == "/api/v1/query"
        result = [{"metric": {"queue": str(n)}, "value": [1.7e9, each]} for n, each in enumerate(VECTORS[query])]
        body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def prometheus() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Prometheus) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def by_figure() -> Any:
    (block,) = (each for each in blocks_of(ROOT / "docs" / "autoscaling.md", "python") if "by_figure" in each.text)
    names: dict[str, Any] = {"mesh": mesh}
    exec(block.text, names)
    return names["by_figure"]


def asked(policy: Any, **arguments: Any) -> float:
    context = read_context(control_pb2.PolicyQuestion(running_replicas=1))
    return asyncio.run(policy(context, **arguments))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("query", "wanted"), [("sum(waiting)", 2.75), ("waiting", 2.875), ("absent", 0.0)])
def test_a_policy_follows_a_figure_in_prometheus(prometheus: str, by_figure: Any, query: str, wanted: float) -> None:
    """In the place of an option that keeps its results (item 225)."""
    assert asked(by_figure, prometheus=prometheus, query=query, per_replica=4) == wanted


def test_a_prometheus_that_is_away_is_an_error_of_the_policy(prometheus: str, by_figure: Any) -> None:
    """The status shows it, and the last decision stays (item 225)."""
    with pytest.raises(URLError):
        asked(by_figure, prometheus="http://127.0.0.1:1", query="waiting", per_replica=4)
