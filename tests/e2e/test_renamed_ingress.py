"""An application whose ingress class is renamed, under load by gRPC clients: none of them notices more than that."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

import mesh
from mesh.api import _run
from tests.e2e.conftest import Deploy
from tests.e2e.gate import small
from tests.e2e.load import Load
from tests.e2e.replicas import running
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc


@small(num_replicas=2, max_ongoing_requests=100)
class Before(shop_pb2_grpc.ShopServicer):
    async def Price(self, request: Any, context: Any) -> Any:
        return shop_pb2.Item(name="before")


@small(num_replicas=2, max_ongoing_requests=100)
class After(shop_pb2_grpc.ShopServicer):
    """Its constructor waits for a file, and fails if that says so."""

    def __init__(self, gate: Path) -> None:
        while not gate.exists():
            time.sleep(0.01)
        if gate.read_text() == "fail":
            raise ValueError("no model")

    async def Price(self, request: Any, context: Any) -> Any:
        return shop_pb2.Item(name="after")


@pytest.fixture
def price(channel: grpc.Channel) -> Callable[[], str]:
    stub = shop_pb2_grpc.ShopStub(channel)

    def call() -> str:
        answer = stub.Price(shop_pb2.Item(), metadata=(("application", "renamed"),), timeout=20)
        return str(answer.name)

    return call


def test_a_renamed_ingress_serves_on_until_the_new_one_does(
    deploy: Deploy, price: Callable[[], str], tmp_path: Path
) -> None:
    """First the new one fails, then it takes its time (item 190)."""
    deploy(Before.bind(), "renamed")
    with Load(*[price] * 4) as load:
        load.until_answered(100)
        bad = tmp_path / "bad"
        bad.write_text("fail")
        with pytest.raises(RuntimeError, match="no model"):
            mesh.run(After.bind(bad), name="renamed", route_prefix="/renamed")
        load.until_answered(100)
        before = running("renamed", "Before").keys()
        _run(After.bind(tmp_path / "good"), name="renamed", route_prefix="/renamed", _blocking=False)
        load.until_answered(100)
        assert running("renamed", "Before").keys() == before
        assert set(load.answers) == {"before"}
        (tmp_path / "good").write_text("go")
        until(lambda: set(load.answers[-50:]) == {"after"}, timeout_s=30)
        until(lambda: mesh.status().applications["renamed"].status == "RUNNING")
        until(lambda: not running("renamed", "Before"), timeout_s=30)
    assert load.errors == []
