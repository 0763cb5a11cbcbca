"""A replica from outside: the actor that it is, and how one that is ill leaves."""

import time
from pathlib import Path
from typing import Any

import ray

import mesh
from tests.e2e.conftest import Deploy
from tests.e2e.gate import Gate, small
from tests.e2e.replicas import replicas, running
from tests.e2e.waiting import until


@small()
class Plain:
    async def __call__(self) -> str:
        return "well"


@small(health_check_period_s=0.1, graceful_shutdown_timeout_s=20)
class FallsIll:
    def __init__(self, gate: mesh.DeploymentHandle[Any], sick: Path) -> None:
        self._gate = gate
        self._sick = sick

    async def __call__(self, label: str) -> Any:
        return await self._gate.wait.remote(label)

    async def check_health(self) -> None:
        if self._sick.exists():
            raise RuntimeError("ill")


@small(health_check_period_s=0.1, health_check_timeout_s=1, graceful_shutdown_timeout_s=0.5)
class Stuck:
    async def __call__(self) -> str:
        return "well"

    async def block(self) -> None:
        time.sleep(60)  # noqa: ASYNC251  The mistake that the test is about.


def test_a_replica_is_one_named_actor(deploy: Deploy) -> None:
    """Operators find it by the names that `mesh status` shows (item 145)."""
    deploy(Plain.options(num_replicas=2).bind(), "plain")
    named = [
        each["name"]
        for each in ray.util.list_named_actors(all_namespaces=True)
        if each["namespace"] == "mesh" and each["name"].startswith("MESH_REPLICA::plain#Plain#")
    ]
    assert sorted(name.rpartition("#")[2] for name in named) == sorted(running("plain", "Plain"))


def test_an_unhealthy_replica_finishes_its_calls(deploy: Deploy, tmp_path: Path) -> None:
    """After three failed checks it is stopped gracefully, not killed (item 152)."""
    sick = tmp_path / "sick"
    gate = deploy(Gate.bind(), "sickbed")
    handle = deploy(FallsIll.bind(gate, sick), "falls-ill")
    call = handle.remote("last call")
    until(lambda: gate.entered.remote().result(timeout_s=10) == ["last call"])
    (ill,) = running("falls-ill", "FallsIll")
    sick.touch()
    until(lambda: ("STOPPING", ill) in {(each.state, each.replica_id) for each in replicas("falls-ill", "FallsIll")})
    sick.unlink()
    gate.open.remote("last call").result(timeout_s=10)
    assert call.result(timeout_s=20) == "last call"
    until(lambda: running("falls-ill", "FallsIll").keys() - {ill}, timeout_s=30)


def test_a_replica_whose_event_loop_is_stuck_is_replaced(deploy: Deploy) -> None:
    """Its health checks time out, also where the class defines none (item 151)."""
    handle = deploy(Stuck.bind(), "stuck")
    (stuck,) = running("stuck", "Stuck")
    handle.block.remote()
    until(lambda: running("stuck", "Stuck").keys() - {stuck}, timeout_s=30)
    assert handle.options(timeout_s=20).remote().result() == "well"


@small(num_replicas=2, health_check_period_s=0.5)
class Warming:
    """Takes no calls while its flag is there."""

    def __init__(self) -> None:
        self._is_ready = True

    async def check_ready(self) -> None:
        if not self._is_ready:
            raise RuntimeError("the cache is cold")

    async def cool(self) -> str:
        self._is_ready = False
        return mesh.get_replica_context().replica_id

    async def __call__(self) -> str:
        return mesh.get_replica_context().replica_id


def test_a_replica_that_is_not_ready_gets_no_calls_and_stays(deploy: Deploy) -> None:
    """`check_ready` is apart from `check_health`: nothing is replaced."""
    handle: Any = deploy(Warming.bind(), "warming")
    before = running("warming", "Warming")
    cold = handle.cool.remote().result(timeout_s=20)
    until(lambda: {handle.remote().result(timeout_s=20) for _ in range(20)} == before.keys() - {cold})
    assert running("warming", "Warming").keys() == before.keys()
    message = mesh.status().applications["warming"].deployments["Warming"].message
    assert "RuntimeError: the cache is cold" in message
