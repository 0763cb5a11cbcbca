"""grpc-js, the client of npm, through a gateway: all arities, compression, metadata, details, deadlines and cancels.

What the program prints is asserted by `assert_answers_of_grpc_js`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import mesh
from tests.e2e.conftest import Deploy, Gateway
from tests.e2e.gate import small
from tests.e2e.waiting import until
from tests.unit.fakes.client_programs import SHOP_PROTO, assert_answers_of_grpc_js, install_grpc_js, run
from tests.unit.fakes.rpc_ends import AsyncShop, ThreadShop

pytestmark = pytest.mark.timeout(240)


@small(max_ongoing_requests=1000)
class AsyncStore(AsyncShop):
    def cancelled(self) -> int:
        return self.seen.cancelled


@small(max_ongoing_requests=1000)
class ThreadStore(ThreadShop):
    def cancelled(self) -> int:
        return self.seen.cancelled


@pytest.fixture(scope="module")
def grpc_js(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with grpc-js."""
    folder = tmp_path_factory.mktemp("grpc-js")
    install_grpc_js(folder)
    return folder


@pytest.mark.parametrize("port", ["grpc_port", "http_port"])
@pytest.mark.parametrize("store", [AsyncStore, ThreadStore], ids=["async", "threads"])
def test_grpc_js_calls_through_a_gateway(
    grpc_js: Path, gateway: Gateway, deploy: Deploy, store: Any, port: str
) -> None:
    """The cancelled stream ends at the replica too (items 211, 215)."""
    handle: mesh.DeploymentHandle[Any] = deploy(store.bind(), "store")
    address = f"127.0.0.1:{getattr(gateway, port)}"
    printed = run("node", "client.js", address, str(SHOP_PROTO), folder=grpc_js)
    assert_answers_of_grpc_js(json.loads(printed))
    until(lambda: handle.cancelled.remote().result(timeout_s=15))
