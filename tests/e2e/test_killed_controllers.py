"""Each operation under load, and the controller is killed at a random moment of it: no call fails.

That it may die between any two steps is shown in tests/sim; here it is a real process. Twenty updates of one replica
are in tests/e2e/test_rollout.py, and gateways of several nodes in tests/nodes/test_gateway_rolls.py.
"""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from click.testing import CliRunner

import mesh
from mesh.cli import main
from tests.e2e.conftest import Deploy, Gateway
from tests.e2e.controller_deaths import killed_controller
from tests.e2e.gate import small
from tests.e2e.load import Load
from tests.e2e.replicas import running
from tests.e2e.test_canary import Project, callers, project, versions
from tests.e2e.test_rollout import CALL_S, Doomed, names_another
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

_ = project
"""A fixture of this module too."""
CLIENTS = 12
"""Enough that each of two gateways has some of them."""


class Answering(shop_pb2_grpc.ShopServicer):
    def __init__(self, version: str) -> None:
        self._version = version

    def reconfigure(self, config: dict[str, str]) -> None:
        self._limit = int(config["limit"])

    async def Price(self, request: Any, context: Any) -> Any:
        await asyncio.sleep(CALL_S)
        return shop_pb2.Item(name=self._version)


@small(max_ongoing_requests=100, min_ready_s=0.3, user_config={"limit": "1"})
class Before(Answering):
    pass


@small(max_ongoing_requests=100, min_ready_s=0.3, user_config={"limit": "1"})
class After(Answering):
    pass


@pytest.fixture
def price(channel: grpc.Channel) -> Callable[[], str]:
    return pricing("killed", channel)


def pricing(app: str, channel: grpc.Channel) -> Callable[[], str]:
    stub = shop_pb2_grpc.ShopStub(channel)
    return lambda: str(stub.Price(shop_pb2.Item(), metadata=(("application", app),), timeout=30).name)


@pytest.mark.timeout(180)
def test_updates_renames_and_rollbacks_end_as_asked_for_without_a_failed_call(
    deploy: Deploy, price: Callable[[], str]
) -> None:
    deploy(Before.bind("one"), "killed")
    with Load(*[price] * 4) as load:
        load.until_answered(50)
        with killed_controller():
            deploy(Before.bind("two"), "killed")
        until(lambda: set(load.answers[-20:]) == {"two"}, timeout_s=30)
        with killed_controller(), pytest.raises(RuntimeError, match="invalid literal"):
            deploy(Before.options(user_config={"limit": "much"}).bind("two"), "killed")
        load.until_answered(50)
        with killed_controller():
            deploy(After.bind("three"), "killed")
        until(lambda: set(load.answers[-20:]) == {"three"}, timeout_s=30)
        with killed_controller():
            back = CliRunner().invoke(main.main, ["rollback", "killed"])
        assert back.exit_code == 0, back.output
        until(lambda: set(load.answers[-20:]) == {"two"}, timeout_s=30)
    assert load.errors == []
    assert set(load.answers) == {"one", "two", "three"}
    until(lambda: mesh.status().applications["killed"].status == "RUNNING")


@pytest.mark.timeout(180)
def test_a_version_that_crashes_late_replaces_nothing(deploy: Deploy, channel: grpc.Channel) -> None:
    """Only calls that its dying processes execute may fail, under both controllers (items 189, 190)."""
    doomed = Doomed.options(num_replicas=1)
    handle: Any = deploy(doomed.bind("one", lives=True), "doomed")
    before = running("doomed", "Doomed").keys()
    with Load(lambda: handle.remote().result(timeout_s=20), pricing("doomed", channel)) as load:
        load.until_answered(50)
        with killed_controller(within_s=4.0), pytest.raises(RuntimeError, match="came up and failed"):
            deploy(doomed.bind("two", lives=False), "doomed")
        # A controller that was killed when the version had failed has left it to the next one to find that out.
        until(lambda: mesh.status().applications["doomed"].status == "DEPLOY_FAILED")
        until(lambda: running("doomed", "Doomed").keys() == before)
        errors = load.errors[:]
        del load.errors[:]
        load.until_answered(50)
        assert set(load.answers[-20:]) == {"one"}
    assert load.errors == []
    assert all(names_another(error, before) for error in errors), errors


@pytest.mark.timeout(180)
def test_gateways_drain_without_a_failed_call(deploy: Deploy, gateway: Gateway) -> None:
    """One of two, and the one that gets its port for itself by another process (item 52)."""
    deploy(Before.bind("one"), "drained")
    mesh.start(grpc_options={"processes": 2})
    with ExitStack() as stack:
        options = (("grpc.use_local_subchannel_pool", 1),)
        channels = [stack.enter_context(grpc.insecure_channel(gateway.grpc_address, options)) for _ in range(CLIENTS)]
        load = stack.enter_context(Load(*[pricing("drained", each) for each in channels]))
        load.until_answered(100)
        with killed_controller(within_s=4.0):
            mesh.start(grpc_options={"processes": 1})
            until(lambda: len(mesh.status().gateways) == 1, timeout_s=60)
        load.until_answered(100)
    assert load.errors == []
    assert list(mesh.status().proxies.values()) == ["HEALTHY"]


@pytest.mark.timeout(180)
def test_a_canary_is_deployed_and_promoted_without_a_failed_call(
    project: Project,
    gateway: Gateway,
    channel: grpc.Channel,
) -> None:
    project.deploy("one")
    with Load(*callers(gateway, channel)) as load:
        load.until_answered(50)
        with killed_controller():
            project.deploy("two", "--traffic-percent", "50")
        until(lambda: "two two" in load.answers[-20:])
        load.until_answered(50)
        # "two one" may come while only one deployment of the canary has started.
        assert "one two" not in load.answers
        with killed_controller():
            project.mesh("promote", "canary")
        until(lambda: versions(load.answers[-50:]).keys() == {"two two"}, timeout_s=30)
    assert load.errors == []
