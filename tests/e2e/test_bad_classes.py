"""User classes that misbehave: the status says so, and everything else keeps serving."""

import asyncio
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import mesh
from mesh.api import _run
from mesh.exceptions import DeploymentUnavailableError, ReplicaUnavailableError
from tests.e2e.conftest import Deploy
from tests.e2e.gate import small
from tests.e2e.replicas import replicas, running
from tests.e2e.waiting import until

Handle = mesh.DeploymentHandle[Any]


@small()
class Good:
    async def __call__(self) -> str:
        return "well"


@small()
class HangsInConstructor:
    def __init__(self, began: Path) -> None:
        began.touch()
        while True:
            time.sleep(1.0)


@small()
class NeverComplete:
    async def __init__(self, began: Path) -> None:
        self._began = began
        began.touch()  # noqa: ASYNC240 - it is quick
        await asyncio.sleep(3600)

    async def __del__(self) -> None:
        await asyncio.sleep(0)
        with self._began.open("a") as file:
            file.write("deleted ")


@small(max_constructor_retry_count=2)
class ExitsInConstructor:
    def __init__(self) -> None:
        os._exit(3)


@small()
class ExitsInCall:
    async def __call__(self) -> None:
        os._exit(3)

    async def well(self) -> str:
        return "well"


@small(health_check_period_s=0.1)
class FailsItsCheck:
    def __init__(self, sick: Path) -> None:
        self._sick = sick

    def check_health(self) -> None:
        if self._sick.exists():
            raise RuntimeError("lost the GPU")


@small(max_constructor_retry_count=1)
class NeedsTooMuch:
    """Its limit stands for a machine without memory: an allocation fails in this process and nowhere else."""

    def __init__(self) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (resource.getrlimit(resource.RLIMIT_AS)[0], -1))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, -1))
        self._weights = bytearray(2**30)


@small()
class IsKilled:
    """As the kernel does with a process that took too much."""

    async def __call__(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@small()
class NeverReconfigured:
    async def __call__(self) -> str:
        return "well"

    def reconfigure(self, config: dict[str, bool]) -> None:
        while config["hang"]:
            time.sleep(0.1)


@small()
class RaisesInDel:
    async def __call__(self) -> str:
        return "well"

    def __del__(self) -> None:
        raise RuntimeError("will not go")


@small()
class HangsInDel(RaisesInDel.func_or_class):  # type: ignore[misc, name-defined]
    def __del__(self) -> None:
        while True:
            time.sleep(1.0)


@pytest.fixture(scope="module", autouse=True)
def good(deploy: Deploy) -> Handle:
    return deploy(Good.bind(), "good")


@pytest.fixture(autouse=True)
def _others_keep_serving(good: Handle) -> Any:
    before = running("good", "Good").keys()
    yield
    assert good.remote().result(timeout_s=10) == "well"
    assert running("good", "Good").keys() == before


def message_of(app: str) -> str:
    return mesh.status().applications[app].message


def test_a_constructor_that_hangs_is_reported_and_can_be_deleted(tmp_path: Path) -> None:
    began = tmp_path / "began"
    _run(HangsInConstructor.bind(began), name="hangs", route_prefix="/hangs", _blocking=False)
    until(began.exists)
    until(lambda: "constructor" in message_of("hangs"), timeout_s=30)
    assert mesh.status().applications["hangs"].status == "DEPLOYING"
    mesh.delete("hangs")
    assert "hangs" not in mesh.status().applications


def test_what_is_deleted_in_its_constructor_is_finalized_once(tmp_path: Path) -> None:
    """`__del__` runs, though `__init__` has not returned (item 76)."""
    began = tmp_path / "began"
    _run(NeverComplete.bind(began), name="incomplete", route_prefix=None, _blocking=False)
    until(began.exists)
    mesh.delete("incomplete")
    assert began.read_text() == "deleted "


def test_a_constructor_that_exits_fails_the_deployment() -> None:
    with pytest.raises(RuntimeError, match=r"failed to start 2 times"):
        mesh.run(ExitsInConstructor.bind(), name="exits", route_prefix="/exits")
    assert mesh.status().applications["exits"].status == "DEPLOY_FAILED"
    mesh.delete("exits")


def test_a_call_that_exits_the_process_fails_alone(deploy: Deploy) -> None:
    handle = deploy(ExitsInCall.bind(), "exits-in-call")
    before = running("exits-in-call", "ExitsInCall").keys()
    with pytest.raises(ReplicaUnavailableError):
        handle.remote().result(timeout_s=20)
    assert handle.well.remote().result(timeout_s=30) == "well"
    assert not before & running("exits-in-call", "ExitsInCall").keys()


def test_the_status_shows_a_failing_health_check(deploy: Deploy, tmp_path: Path) -> None:
    """The message has what `check_health` raised (item 150)."""
    sick = tmp_path / "sick"
    deploy(FailsItsCheck.bind(sick), "sick")
    sick.touch()
    until(lambda: "lost the GPU" in message_of("sick"), timeout_s=30)
    assert mesh.status().applications["sick"].status == "UNHEALTHY"
    sick.unlink()
    until(lambda: mesh.status().applications["sick"].status == "RUNNING", timeout_s=40)


def test_a_constructor_without_memory_fails_the_deployment() -> None:
    with pytest.raises(RuntimeError, match=r"MemoryError"):
        mesh.run(NeedsTooMuch.bind(), name="greedy", route_prefix="/greedy")
    with pytest.raises(DeploymentUnavailableError):
        mesh.get_app_handle("greedy").remote().result(timeout_s=10)
    mesh.delete("greedy")


def test_a_replica_that_the_kernel_kills_is_replaced(deploy: Deploy) -> None:
    handle = deploy(IsKilled.bind(), "killed")
    before = running("killed", "IsKilled").keys()
    with pytest.raises(ReplicaUnavailableError):
        handle.remote().result(timeout_s=20)
    until(lambda: running("killed", "IsKilled").keys() - before, timeout_s=30)


def test_a_reconfiguration_that_never_returns_shows_and_can_be_deleted() -> None:
    """The replica stays UPDATING until then (item 154)."""
    calm = NeverReconfigured.options(user_config={"hang": False})
    mesh.run(calm.options(version="1").bind(), name="stuck", route_prefix="/stuck")
    hanging = calm.options(version="1", user_config={"hang": True})
    _run(hanging.bind(), name="stuck", route_prefix="/stuck", _blocking=False)
    until(lambda: [each.state for each in replicas("stuck", "NeverReconfigured")] == ["UPDATING"])
    assert mesh.status().applications["stuck"].status == "DEPLOYING"
    mesh.delete("stuck")
    assert "stuck" not in mesh.status().applications


@pytest.mark.parametrize("bad", [RaisesInDel, HangsInDel])
def test_a_destructor_that_does_not_end_well_holds_up_no_delete(bad: Any) -> None:
    """It has the graceful shutdown timeout, at least a second (item 153)."""
    handle: Any = mesh.run(bad.bind(), name="undead", route_prefix="/undead")
    assert handle.remote().result(timeout_s=10) == "well"
    mesh.delete("undead")
    assert not replicas("undead", bad.name)
