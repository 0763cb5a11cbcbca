"""The example page in a headless Chromium: JSON, events, a WebSocket, gRPC-Web and Connect, from one origin and two.

`assert_all_answers` asserts what the page has shown.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mesh
from examples.browser import app as page_app
from examples.browser.bundle import bundle
from examples.weather import app as weather_app
from tests.e2e import chromium
from tests.e2e.conftest import Gateway

pytestmark = [
    pytest.mark.skipif(chromium.BINARY is None, reason="Chromium is not installed"),
    pytest.mark.timeout(180),
]

HOURS = {"hours": [0, 1, 2]}
MIDTOWN = {"city": "midtown", "hour": 4620}
BUNDLED = ("gRPC-Web", "gRPC-Web of Connect", "Connect", "Connect, Protobuf")


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the bundle of JavaScript clients."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    directory = tmp_path_factory.mktemp("clients")
    try:
        bundle(directory)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"npm cannot install the clients here: {error}")
    return directory


def run_applications(clients: Path) -> None:
    mesh.run(weather_app.app, name="weather", route_prefix="/weather")
    mesh.run(page_app.build(page_app.PageArgs(str(clients))), name="page", route_prefix="/page")


@pytest.fixture(scope="module")
def closed(gateway: Gateway, clients: Path) -> Iterator[Gateway]:
    """Gateways that let no page of another origin call."""
    run_applications(clients)
    yield gateway
    for name in ("page", "weather"):
        mesh.delete(name)


@pytest.fixture(scope="module")
def opened(gateway: Gateway, clients: Path) -> Iterator[Gateway]:
    """A mesh of its own that lets pages of its HTTP port call every port; after it the run's mesh is there again."""
    mesh.shutdown()
    mesh.start(
        http_options={"port": gateway.http_port, "cors": {"origins": [gateway.http_url]}},
        grpc_options={"port": gateway.grpc_port},
    )
    run_applications(clients)
    yield gateway
    mesh.shutdown()
    gateway.start_mesh()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    with chromium.browser(tmp_path_factory.mktemp("chromium")) as page:
        yield page


def results(page: chromium.Page, gateway: Gateway, query: str = "") -> dict[str, Any]:
    """What came back to the page, by name of the call."""
    page.open(f"{gateway.http_url}/page/{query}")
    found: dict[str, Any] = page.value_of("results")
    return found


def assert_all_answers(found: dict[str, Any]) -> None:
    forecast = found["JSON"]
    assert (forecast["status"], forecast["city"], forecast["hour"]) == (200, "midtown", 4620)
    assert forecast["requestId"]
    assert found["JSON, POST"]["celsius"] == forecast["celsius"]
    unknown = found["JSON, an unknown city"]
    assert (unknown["status"], unknown["code"]) == (404, 5)
    assert found["lines of a stream"]["hours"] == HOURS["hours"]
    assert found["lines of a stream"]["pieces"] > 1, "the messages come one by one"
    assert found["server-sent events"] == HOURS
    cities = [answer["city"] for answer in found["WebSocket"]["answers"]]
    assert (found["WebSocket"]["code"], cities) == (1000, ["midtown", "northport"])
    for name in BUNDLED:
        assert {**found[name], "code": 0} == {**MIDTOWN, "celsius": forecast["celsius"], "code": 0}
        assert found[f"{name}, stream"] == HOURS
        assert found[f"{name}, an unknown city"] == {"code": 5, "message": unknown["message"]}


def test_a_page_calls_the_mesh_that_serves_it(closed: Gateway, page: chromium.Page) -> None:
    """All clients, at one origin."""
    assert_all_answers(results(page, closed))
    assert page.value_of("document.querySelectorAll('#calls tr').length") == 6 + 3 * len(BUNDLED)
    assert page.value_of("document.querySelectorAll('.failed').length") == 0


def test_a_page_of_another_origin_is_refused(closed: Gateway, page: chromium.Page) -> None:
    """By default. The gateway refuses WebSockets itself, because browsers do not ask before they open them."""
    found = results(page, closed, f"?api=http://{closed.grpc_address}")
    assert [name for name, result in found.items() if not is_refused(result)] == []


def is_refused(result: dict[str, Any]) -> bool:
    """By the browser, in the words of the client."""
    return "failed" in result or result.get("code") in (2, 14)


def test_a_page_of_an_origin_that_is_named_calls_in_all_dialects(opened: Gateway, page: chromium.Page) -> None:
    """Its calls go to another port of the gateway, which is another origin."""
    assert_all_answers(results(page, opened, f"?api=http://{opened.grpc_address}"))
