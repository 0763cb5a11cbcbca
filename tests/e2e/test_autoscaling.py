"""Replicas follow the load, or a policy (items 225–234), on a real Ray with short delays."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray

import mesh
from tests.e2e import leftovers
from tests.e2e.conftest import Deploy
from tests.e2e.gate import Gate, small
from tests.e2e.replicas import running
from tests.e2e.scaling_policies import follow_stats, one_more_behind
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

Handle = mesh.DeploymentHandle[Any]

START_S = 60.0
"""For a call that waits until a replica has started, on a busy machine too."""

QUICK = {
    "target_ongoing_requests": 1,
    "metrics_interval_s": 0.1,
    "look_back_period_s": 0.3,
    "upscale_delay_s": 0.1,
    "downscale_delay_s": 0.2,
}


@small(max_ongoing_requests=2)
class Worker:
    """Works until the gate opens for the label."""

    def __init__(self, gate: Handle) -> None:
        self._gate = gate

    async def __call__(self, label: str) -> str:
        return await self._gate.wait.remote(label)

    async def ping(self) -> str:
        return "pong"


@small(num_replicas="auto", autoscaling_config={**QUICK, "max_replicas": 3, "policy": follow_stats})
class Hungry:
    def __init__(self, *_: object) -> None:
        self._hunger = 1

    async def grow(self, hunger: int) -> None:
        self._hunger = hunger

    def record_autoscaling_stats(self) -> dict[str, float]:
        return {"hunger": self._hunger}


@small(autoscaling_config={**QUICK, "min_replicas": 0, "max_replicas": 1})
class Pricer(shop_pb2_grpc.ShopServicer):
    async def Price(self, request: Any, context: Any) -> Any:
        return request


@pytest.fixture(scope="module")
def gate(deploy: Deploy) -> Handle:
    return deploy(Gate.bind(), "scaling-gate")


def worker(gate: Handle, **autoscaling: Any) -> mesh.Application:
    return Worker.options(autoscaling_config={**QUICK, **autoscaling}).bind(gate)


def status_of(app: str, deployment: str = "Worker") -> Any:
    return mesh.status().applications[app].deployments[deployment]


def has(app: str, count: int, deployment: str = "Worker") -> bool:
    """Exactly `count` replicas exist and run."""
    return dict(status_of(app, deployment).replica_states) == ({"RUNNING": count} if count else {})


def test_replicas_come_with_the_load_and_go_with_it(deploy: Deploy, gate: Handle) -> None:
    """The number follows the rule and its delays (items 196, 227, 228, 230)."""
    handle = deploy(worker(gate, min_replicas=1, max_replicas=3), "load")
    assert has("load", 1)
    calls = [handle.remote("load") for _ in range(7)]
    until(lambda: has("load", 3), timeout_s=30)
    until(lambda: "target 3: 7 requests" in status_of("load").autoscaling.decision)
    assert until(lambda: status_of("load").status_trigger == "UPSCALE_COMPLETED")
    gate.open.remote("load").result(timeout_s=10)
    assert [call.result(timeout_s=10) for call in calls] == ["load"] * 7
    until(lambda: has("load", 1), timeout_s=30)
    assert mesh.status().applications["load"].status == "RUNNING"
    assert until(lambda: status_of("load").status_trigger == "DOWNSCALE_COMPLETED")


def test_from_zero_and_back(deploy: Deploy, gate: Handle) -> None:
    """The call that finds no replica waits and is served (item 231)."""
    # Reported in an hour, were it not for the call that waits.
    slow = {"metrics_interval_s": 3600.0, "look_back_period_s": 0.1, "upscale_delay_s": 3600.0}
    handle = deploy(worker(gate, min_replicas=0, max_replicas=2, **slow), "zero")
    assert has("zero", 0)
    assert handle.ping.remote().result(timeout_s=START_S) == "pong"

    quick = deploy(worker(gate, min_replicas=0, max_replicas=2), "zero-and-back")
    for _ in range(2):
        until(lambda: has("zero-and-back", 0), timeout_s=30)
        assert status_of("zero-and-back").status == "HEALTHY"
        assert quick.ping.remote().result(timeout_s=START_S) == "pong"


def test_a_grpc_client_is_served_from_zero(deploy: Deploy, channel: grpc.Channel) -> None:
    """A call through a gateway starts the first replica too (item 231)."""
    deploy(Pricer.bind(), "zero-typed")
    assert has("zero-typed", 0, "Pricer")
    shop = shop_pb2_grpc.ShopStub(channel)
    assert (
        shop.Price(shop_pb2.Item(name="pear"), metadata=[("application", "zero-typed")], timeout=START_S).name == "pear"
    )


CALLER = """
import mesh, ray, sys
ray.init(address=sys.argv[1], namespace="mesh", logging_level="warning", log_to_driver=False)
handle = mesh.get_app_handle("pinned")
calls = [handle.remote("never") for _ in range(20)]
print("called", flush=True)
calls[0].result()
"""


def test_a_killed_caller_pins_no_replicas(deploy: Deploy, gate: Handle) -> None:
    """Neither what it had queued nor what it had running counts any more (item 233)."""
    deploy(worker(gate, min_replicas=1, max_replicas=3), "pinned")
    command = [sys.executable, "-c", CALLER, ray.get_runtime_context().gcs_address]
    caller = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    try:
        until(lambda: has("pinned", 3), timeout_s=40)
    finally:
        caller.kill()
        caller.wait()
    until(lambda: has("pinned", 1), timeout_s=30)
    assert "target 1: 0 requests" in status_of("pinned").autoscaling.decision


def test_a_killed_controller_keeps_the_number(deploy: Deploy, gate: Handle) -> None:
    """The same replicas go on serving; silence is not taken for idleness (item 183)."""
    handle = deploy(worker(gate, min_replicas=1, max_replicas=3), "kept")
    calls = [handle.remote("kept") for _ in range(5)]
    until(lambda: has("kept", 3), timeout_s=30)
    before = running("kept", "Worker").keys()
    kill_controller()
    until(lambda: status_of("kept").autoscaling.current_requests >= 5, timeout_s=40)
    assert running("kept", "Worker").keys() == before
    gate.open.remote("kept").result(timeout_s=10)
    assert [call.result(timeout_s=10) for call in calls] == ["kept"] * 5
    assert "until every process has reported" in until(
        lambda: found if "wants 1" in (found := status_of("kept").autoscaling.decision) else ""
    )
    assert has("kept", 3)


def test_a_policy_decides_and_cannot_do_harm(deploy: Deploy, gate: Handle, tmp_path: Path) -> None:
    """Its process may raise, hang, end or talk nonsense: what it said last stays, and the rest is served."""
    orders = tmp_path / "orders"
    orders.write_text("2")
    policy = {
        "policy_function": "tests.e2e.scaling_policies:obey",
        "policy_kwargs": {"orders": str(orders)},
        "timeout_s": 1.0,
    }
    handle = deploy(worker(gate, min_replicas=1, max_replicas=3, policy=policy), "policy")
    until(lambda: has("policy", 2), timeout_s=30)
    for order, complaint in (
        ("raise", "Venomous: no idea for Worker"),
        ("chatter", "must return a number of replicas, it returned 'many'"),
        ("hang", "no answer within 1 s"),
        ("exit", "its process ended"),
    ):
        orders.write_text(order)
        # One status has both: on a busy machine the next answer may be late, which is another problem.
        shown = until(lambda complaint=complaint: with_problem("policy", complaint))
        assert complaint in shown.message
        assert handle.ping.remote().result(timeout_s=10) == "pong"
        assert has("policy", 2)
    orders.write_text("300")
    until(lambda: has("policy", 3) and not status_of("policy").autoscaling.problem)
    assert policy_processes()
    mesh.delete("policy")
    until(lambda: not policy_processes())


def with_problem(app: str, problem: str) -> Any:
    """The status of its deployment, once it shows that."""
    found = status_of(app)
    return found if problem in found.autoscaling.problem else None


def test_a_policy_hears_what_replicas_say(deploy: Deploy) -> None:
    """Values of `record_autoscaling_stats` reach the policy (item 155)."""
    handle = deploy(Hungry.bind(), "hungry")
    assert has("hungry", 1, "Hungry")
    handle.grow.remote(2).result(timeout_s=10)
    until(lambda: has("hungry", 2, "Hungry"), timeout_s=30)
    mesh.delete("hungry")
    until(lambda: not policy_processes())


def test_one_policy_decides_about_a_whole_application(deploy: Deploy) -> None:
    """In one process, found by its path where the ingress finds its modules."""
    front, behind = (
        Hungry.options(name=name, num_replicas=None, autoscaling_config={**QUICK, "max_replicas": 3})
        for name in ("Front", "Behind")
    )
    mesh.run(front.bind(behind.bind()), name="pair", route_prefix=None, autoscaling_policy=one_more_behind)
    until(lambda: has("pair", 2, "Front") and has("pair", 3, "Behind"), timeout_s=30)
    assert len(policy_processes()) == 1
    assert "one_more_behind asks for 3" in status_of("pair", "Behind").autoscaling.decision
    mesh.delete("pair")
    until(lambda: not policy_processes())


def policy_processes() -> list[str]:
    return leftovers.actor_processes("policy")


def kill_controller() -> None:
    (pid,) = [int(command.split()[0]) for command in leftovers.actor_processes("controller")]
    os.kill(pid, signal.SIGKILL)
