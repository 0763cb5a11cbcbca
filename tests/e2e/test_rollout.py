"""Updates and deaths under constant load: calls that they do not touch notice nothing.

How long the slowest call takes is measured by `make bench`; the bounds here only tell a stall from a busy machine.
"""

import asyncio
import contextlib
import functools
import os
import random
import signal
import threading
from collections.abc import Collection
from typing import Any

import grpc
import pytest

import mesh
from mesh.exceptions import ReplicaUnavailableError
from tests.e2e.conftest import Deploy
from tests.e2e.controller_deaths import killed_controller
from tests.e2e.gate import small
from tests.e2e.load import Load
from tests.e2e.replicas import running
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

UPDATES = 20
CALL_S = 0.02
"""A call of each thread is always in progress, and most of the time is left for the processes that start."""
STALL_S = 2.0


@small(max_ongoing_requests=100)
class Versioned:
    def __init__(self, version: str) -> None:
        self._version = version

    async def __call__(self) -> str:
        await asyncio.sleep(CALL_S)
        return self._version

    async def where(self) -> str:
        return mesh.get_replica_context().replica_id


def of_version(number: int) -> mesh.Application:
    return Versioned.bind(f"v{number}")


@pytest.mark.timeout(180)
def test_twenty_updates_of_one_replica_under_load_lose_and_stall_no_call() -> None:
    """Also when the controller is killed at a random moment of one of them (items 183, 189)."""
    deaths = {random.randint(1, UPDATES): killed_controller()}
    handle: Any = mesh.run(of_version(0), name="rolling", route_prefix="/rolling")
    with Load(*[lambda: handle.remote().result(timeout_s=20)] * 4) as load:
        load.until_answered(50)
        for number in range(1, UPDATES + 1):
            with deaths.get(number, contextlib.nullcontext()):
                mesh.run(of_version(number), name="rolling", route_prefix="/rolling")
            load.until_answered(1)
        until(lambda: load.answers[-1] == f"v{UPDATES}")
    assert load.errors == []
    assert set(load.answers) == {f"v{number}" for number in range(UPDATES + 1)}
    assert load.slowest_s < STALL_S
    mesh.delete("rolling")


def test_a_killed_replica_costs_only_the_calls_it_executes(deploy: Deploy) -> None:
    handle = deploy(Versioned.options(num_replicas=2).bind("v1"), "restarted")
    before = until(lambda: found if len(found := running("restarted", "Versioned")) == 2 else None)
    victim, survivor = sorted(before)
    with Load(*[lambda: handle.where.remote().result(timeout_s=20)] * 4) as load:
        load.until_answered(100)
        os.kill(before[victim].pid, signal.SIGKILL)
        until(lambda: len(running("restarted", "Versioned").keys() - before.keys()) == 1, timeout_s=30)
        until(lambda: set(load.answers[-50:]) == running("restarted", "Versioned").keys(), timeout_s=30)
    assert len(load.errors) <= calls_at_once(load)
    assert all(isinstance(error, ReplicaUnavailableError) and error.replica_id == victim for error in load.errors)
    assert survivor in running("restarted", "Versioned")
    assert load.slowest_s < STALL_S


@small(num_replicas=5, version="1", max_ongoing_requests=100)
class Threshold(shop_pb2_grpc.ShopServicer):
    def reconfigure(self, config: dict[str, str]) -> None:
        self._threshold = int(config["threshold"])

    async def __call__(self) -> int:
        return self._threshold

    async def Price(self, request: Any, context: Any) -> Any:
        return shop_pb2.Item(name=str(self._threshold))


def at_threshold(threshold: str) -> mesh.Application:
    return Threshold.options(user_config={"threshold": threshold}).bind()


@pytest.mark.filterwarnings("ignore:version= of a deployment:DeprecationWarning")
def test_a_bad_user_config_under_load_costs_no_call(deploy: Deploy, channel: grpc.Channel) -> None:
    """The replicas that refuse it serve on with the one before, and the others never get it (items 154, 187)."""
    handle: Any = deploy(at_threshold("1"), "configured")
    price = functools.partial(shop_pb2_grpc.ShopStub(channel).Price, shop_pb2.Item(), timeout=20)
    before = {each.pid for each in running("configured", "Threshold").values()}
    with Load(
        *[lambda: handle.remote().result(timeout_s=20)] * 2,
        *[lambda: int(price(metadata=(("application", "configured"),)).name)] * 2,
    ) as load:
        load.until_answered(100)
        with pytest.raises(RuntimeError, match="ValueError: invalid literal"):
            deploy(at_threshold("much"), "configured")
        load.until_answered(100)
        assert set(load.answers) == {1}
        deploy(at_threshold("2"), "configured")
        until(lambda: set(load.answers[-100:]) == {2})
    assert load.errors == []
    assert {each.pid for each in running("configured", "Threshold").values()} == before


@small(num_replicas=2, max_ongoing_requests=100, min_ready_s=3.0)
class Doomed(shop_pb2_grpc.ShopServicer):
    """Its process ends half a second after it has come up, unless it lives."""

    def __init__(self, version: str, lives: bool) -> None:
        self._version = version
        if not lives:
            threading.Timer(0.5, os._exit, (1,)).start()

    async def __call__(self) -> str:
        return self._version

    async def Price(self, request: Any, context: Any) -> Any:
        return shop_pb2.Item(name=self._version)


def test_a_version_that_crashes_late_replaces_nothing_under_load(deploy: Deploy, channel: grpc.Channel) -> None:
    """Only calls that its dying processes execute may fail (items 189, 190)."""
    handle: Any = deploy(Doomed.bind("v1", lives=True), "doomed")
    price = functools.partial(shop_pb2_grpc.ShopStub(channel).Price, shop_pb2.Item(), timeout=20)
    before = running("doomed", "Doomed").keys()
    with Load(
        *[lambda: handle.remote().result(timeout_s=20)] * 2,
        *[lambda: price(metadata=(("application", "doomed"),)).name] * 2,
    ) as load:
        load.until_answered(100)
        with pytest.raises(RuntimeError, match="came up and failed"):
            deploy(Doomed.bind("v2", lives=False), "doomed")
        until(lambda: running("doomed", "Doomed").keys() == before, timeout_s=30)
        errors = load.errors[:]
        del load.errors[:]
        load.until_answered(100)
        assert set(load.answers[-50:]) == {"v1"}
    assert load.errors == []
    assert all(names_another(error, before) for error in errors), errors


def names_another(error: BaseException, replica_ids: Collection[str]) -> bool:
    """The error is that of a call on a replica that died, and is none of these."""
    if isinstance(error, ReplicaUnavailableError):
        return error.replica_id not in replica_ids
    assert isinstance(error, grpc.RpcError)
    return error.code() is grpc.StatusCode.UNAVAILABLE and not any(each in error.details() for each in replica_ids)


def calls_at_once(load: Load) -> int:
    """A thread has one call at a time, and the dead replica executed no more than that."""
    return len(load.threads)
