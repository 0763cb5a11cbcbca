"""Deleting and ending a chain of deployments: callers leave before those they call (item 61)."""

import threading
from typing import Any

import pytest

import mesh
from mesh.exceptions import MeshException
from tests.e2e.conftest import Deploy
from tests.e2e.gate import Gate
from tests.e2e.replicas import replicas, running
from tests.e2e.waiting import until

Handle = mesh.DeploymentHandle[Any]

stage = mesh.deployment(max_ongoing_requests=100, graceful_shutdown_timeout_s=20, ray_actor_options={"num_cpus": 0})


@stage
class Last:
    async def __call__(self, label: str) -> str:
        return f"{label} came through"


@stage
class Middle:
    def __init__(self, last: Handle) -> None:
        self._last = last

    async def __call__(self, label: str) -> str:
        return await self._last.remote(label)


@stage
class First:
    """Calls on when the gate has opened."""

    def __init__(self, middle: Handle, gate: Handle) -> None:
        self._middle = middle
        self._gate = gate

    async def __call__(self, label: str) -> str:
        await self._gate.wait.remote(label)
        return await self._middle.remote(label)


@pytest.fixture(scope="module")
def gate(deploy: Deploy) -> Handle:
    return deploy(Gate.bind(), "stop-order-gate")


def run_chain(gate: Handle, name: str) -> Handle:
    return mesh.run(First.bind(Middle.bind(Last.bind()), gate), name=name, route_prefix=f"/{name}")


def states(app: str) -> dict[str, list[str]]:
    return {name: [each.state for each in replicas(app, name)] for name in ("First", "Middle", "Last")}


def test_a_running_call_gets_through_the_whole_chain_of_a_deleted_application(gate: Handle) -> None:
    """It makes its nested calls after the delete has begun; later callers get the error of a deleted application."""
    chain = run_chain(gate, "chain")
    slow = [chain.remote(f"slow {number}") for number in range(20)]
    until(lambda: len(gate.entered.remote().result(timeout_s=10)) == len(slow))
    mesh.delete("chain", _blocking=False)
    until(lambda: states("chain")["First"] == ["STOPPING"])
    assert states("chain") == {"First": ["STOPPING"], "Middle": ["RUNNING"], "Last": ["RUNNING"]}
    with pytest.raises(MeshException, match="does not exist"):
        chain.remote("late").result(timeout_s=10)
    for number in range(len(slow)):
        gate.open.remote(f"slow {number}").result(timeout_s=10)
    assert [call.result(timeout_s=10) for call in slow] == [f"slow {n} came through" for n in range(len(slow))]
    mesh.delete("chain")
    assert "chain" not in mesh.status().applications


def test_no_accepted_call_fails_when_an_application_is_deleted_under_load(gate: Handle) -> None:
    """What a caller may see is that the application does not exist any more: never an error from inside of it."""
    chain = run_chain(gate, "loaded")
    gate.open.remote("load").result(timeout_s=10)
    answers: list[str] = []
    errors: list[str] = []

    def call_until_refused() -> None:
        while not errors or len(errors) < len(callers):
            try:
                answers.append(chain.remote("load").result(timeout_s=20))
            except MeshException as error:
                errors.append(str(error))
                return

    callers = [threading.Thread(target=call_until_refused) for _ in range(4)]
    for caller in callers:
        caller.start()
    until(lambda: len(answers) > 200)
    mesh.delete("loaded")
    for caller in callers:
        caller.join(timeout=30)
    assert set(answers) == {"load came through"}
    assert len(errors) == len(callers)
    assert all("'loaded' does not exist" in error for error in errors), errors


def test_a_redeployed_graph_keeps_what_the_old_version_calls(gate: Handle) -> None:
    """The new First calls Last itself; Middle stays until the last call of the old First is through."""
    chain = run_chain(gate, "regraphed")
    slow = chain.remote("regraph")
    until(lambda: "regraph" in gate.entered.remote().result(timeout_s=10))
    direct = mesh.run(First.bind(Last.bind(), gate), name="regraphed", route_prefix="/regraphed")
    gate.open.remote("direct").result(timeout_s=10)
    assert direct.remote("direct").result(timeout_s=10) == "direct came through"
    assert running("regraphed", "Middle")
    gate.open.remote("regraph").result(timeout_s=10)
    assert slow.result(timeout_s=10) == "regraph came through"
    until(lambda: not replicas("regraphed", "Middle"))
    mesh.delete("regraphed")
