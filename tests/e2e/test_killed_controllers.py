"""Each operation under load, and the controller is killed at a random moment of it: no call fails.

That it may die between any two steps is shown in tests/sim/test_crashes.py; here it is a real process.
"""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from click.testing import CliRunner

import mesh
from mesh.cli import main
from tests.e2e.conftest import Deploy, Gateway
from tests.e2e.gate import small
from tests.e2e.load import Load
from tests.e2e.test_canary import Project, callers, project, versions
from tests.e2e.test_recovery import kill_controller
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

_ = project
"""A fixture of this module too."""
WITHIN_S = 1.0
"""Of the beginning of an operation, which takes longer."""


class Answering(shop_pb2_grpc.ShopServicer):
    def __init__(self, version: str) -> None:
        self._version = version

    def reconfigure(self, config: dict[str, str]) -> None:
        self._limit = int(config["limit"])

    async def Price(self, request: Any, context: Any) -> Any:
        return shop_pb2.Item(name=self._version)


@small(max_ongoing_requests=100, min_ready_s=0.3, user_config={"limit": "1"})
class Before(Answering):
    pass


@small(max_ongoing_requests=100, min_ready_s=0.3, user_config={"limit": "1"})
class After(Answering):
    pass


@contextmanager
def killed_controller() -> Iterator[None]:
    """It is killed at some moment of the block, or soon after it began; another one is there at its end."""
    killer = threading.Timer(random.uniform(0.0, WITHIN_S), kill_controller)
    killer.start()
    yield
    killer.join(timeout=40)
    assert not killer.is_alive()


@pytest.fixture
def price(channel: grpc.Channel) -> Callable[[], str]:
    stub = shop_pb2_grpc.ShopStub(channel)
    return lambda: str(stub.Price(shop_pb2.Item(), metadata=(("application", "killed"),), timeout=30).name)


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
