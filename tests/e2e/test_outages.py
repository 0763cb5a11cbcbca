"""A version that ever ran comes back by itself when what its constructor needs is back, whatever happened meanwhile."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

import mesh
from tests.e2e.conftest import Deploy
from tests.e2e.controller_deaths import controller_pid, kill_controller
from tests.e2e.gate import small
from tests.e2e.replicas import running
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

STARTS_THAT_FAIL = 5
"""More than make a version that never ran DEPLOY_FAILED."""


@small(version="1", max_ongoing_requests=100)
class Dependent(shop_pb2_grpc.ShopServicer):
    """Its constructor reads from a store."""

    def __init__(self, store: Path) -> None:
        self._name = store.read_text()

    async def Price(self, request: Any, context: Any) -> Any:
        return shop_pb2.Item(name=self._name)


def controller_is_killed(deploy: Deploy, app: mesh.Application) -> None:
    kill_controller()
    until(lambda: controller_pid() != 0, timeout_s=30)


def it_is_deployed_again(deploy: Deploy, app: mesh.Application) -> None:
    """Nothing about it has changed."""
    deploy(app, "outage")


@pytest.mark.filterwarnings("ignore:version= of a deployment:DeprecationWarning")
@pytest.mark.parametrize("meanwhile", [controller_is_killed, it_is_deployed_again])
def test_a_version_that_ran_comes_back_after_an_outage(
    deploy: Deploy, channel: grpc.Channel, tmp_path: Path, meanwhile: Callable[[Deploy, mesh.Application], None]
) -> None:
    """Clients that called meanwhile get their answers (item 148)."""
    store = tmp_path / "store"
    store.write_text("a model")
    app = Dependent.bind(store)
    deploy(app, "outage")
    meanwhile(deploy, app)
    (replica,) = until(lambda: list(running("outage", "Dependent").values()), timeout_s=30)
    before = restarts()
    store.rename(tmp_path / "away")
    os.kill(replica.pid, signal.SIGKILL)
    until(lambda: not running("outage", "Dependent"))
    call = shop_pb2_grpc.ShopStub(channel).Price.future(
        shop_pb2.Item(), metadata=(("application", "outage"),), timeout=90, wait_for_ready=True
    )
    until(lambda: restarts() > before + STARTS_THAT_FAIL, timeout_s=60)
    (tmp_path / "away").rename(store)
    assert call.result().name == "a model"
    until(lambda: mesh.status().applications["outage"].status == "RUNNING", timeout_s=30)


def restarts() -> int:
    return mesh.status().applications["outage"].deployments["Dependent"].restarts
