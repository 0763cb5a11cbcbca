"""The life of applications: run, status, replacement, redeployment under load, failure, delete, other drivers."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray

import mesh
from mesh.cluster import ray_core
from mesh.cluster.keys import CONTROLLER_ADDRESS_KEY
from mesh.exceptions import DeploymentUnavailableError, MeshException
from mesh.v1 import control_pb2, control_pb2_grpc
from mesh.wire.mesh_token import TOKEN_METADATA
from tests.e2e import leftovers
from tests.e2e.conftest import Deploy, Gateway
from tests.e2e.gate import Gate, small
from tests.e2e.replicas import replicas, running
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

Handle = mesh.DeploymentHandle[Any]


@small(num_replicas=2, max_ongoing_requests=100)
class Versioned(shop_pb2_grpc.ShopServicer):
    """Answers with the version it was bound with."""

    def __init__(self, version: str) -> None:
        self._version = version

    async def __call__(self) -> str:
        await asyncio.sleep(0.005)
        return self._version

    async def Price(self, request: Any, context: Any) -> Any:
        return shop_pb2.Item(name=await self())


@small()
class Mortal:
    """Writes down its life."""

    def __init__(self, diary: Path) -> None:
        self._diary = diary

    async def __call__(self) -> str:
        return "alive"

    async def reconfigure(self, config: dict[str, Any]) -> None:
        self._write(f"config {config['mood']}")

    async def __del__(self) -> None:
        self._write("deleted")

    def _write(self, line: str) -> None:
        with self._diary.open("a") as diary:
            diary.write(f"{line}\n")


@mesh.deployment(ray_actor_options={"num_cpus": 0}, graceful_shutdown_timeout_s=20)
class Patient:
    def __init__(self, gate: Handle) -> None:
        self._gate = gate

    async def __call__(self, label: str) -> str:
        return await self._gate.wait.remote(label)


@small(max_constructor_retry_count=1)
class Stillborn:
    def __init__(self) -> None:
        raise LookupError("no such weights")


@small(health_check_period_s=0.1)
class Sickly:
    def __init__(self) -> None:
        self._is_sick = False

    async def __call__(self) -> str:
        return mesh.get_replica_context().replica_id

    async def sicken(self) -> None:
        self._is_sick = True

    def check_health(self) -> None:
        if self._is_sick:
            raise RuntimeError("not well")


@small(max_ongoing_requests=100)
def greet(name: str) -> str:
    return f"hello {name}"


def test_status_shows_what_runs(deploy: Deploy) -> None:
    """Statuses and replica counts are right when `run` returns (items 62, 66, 126)."""
    assert deploy(Versioned.bind("one"), "status").remote().result(timeout_s=10) == "one"
    application = until(lambda: running_application("status"))
    deployment = application.deployments["Versioned"]
    assert deployment.status == "HEALTHY"
    assert deployment.replica_states == {"RUNNING": 2}
    assert set(mesh.status().proxies.values()) == {"HEALTHY"}


def running_application(name: str) -> Any:
    """Its status, once all replicas run."""
    found = mesh.status().applications[name]
    states = [each.status for each in found.deployments.values()]
    return found if found.status == "RUNNING" and set(states) == {"HEALTHY"} else None


def test_a_dead_replica_is_replaced(deploy: Deploy) -> None:
    handle = deploy(Versioned.bind("one"), "replace")
    before = until(lambda: found if len(found := running("replace", "Versioned")) == 2 else None)
    for replica in before.values():
        os.kill(replica.pid, signal.SIGKILL)
    after = until(lambda: found if len(found := running("replace", "Versioned")) == 2 else None, timeout_s=30)
    until(lambda: not before.keys() & running("replace", "Versioned").keys(), timeout_s=30)
    assert after
    assert handle.remote().result(timeout_s=20) == "one"
    until(lambda: running_application("replace"))


def test_an_unhealthy_replica_is_replaced(deploy: Deploy) -> None:
    """A replica serves only after its first check (items 149, 150)."""
    handle = deploy(Sickly.bind(), "sickly")
    sick = handle.remote().result(timeout_s=10)
    handle.sicken.remote().result(timeout_s=10)
    until(lambda: sick not in running("sickly", "Sickly") and running("sickly", "Sickly"), timeout_s=30)
    assert handle.remote().result(timeout_s=20) != sick


def test_redeploying_under_load_loses_no_call(deploy: Deploy, gateway: Gateway) -> None:
    """Callers by handle and by gRPC notice only another answer (items 68, 153)."""
    handle = deploy(Versioned.bind("v0"), "redeployed")
    is_over = threading.Event()
    answers: list[str] = []
    errors: list[BaseException] = []

    def call_by_handle() -> None:
        while not is_over.is_set():
            answers.append(handle.remote().result(timeout_s=30))

    def call_by_grpc() -> None:
        with grpc.insecure_channel(gateway.grpc_address) as channel:
            stub = shop_pb2_grpc.ShopStub(channel)
            while not is_over.is_set():
                answers.append(stub.Price(shop_pb2.Item(), metadata=(("application", "redeployed"),), timeout=30).name)

    def noting_errors(call: Any) -> None:
        try:
            call()
        except Exception as error:
            errors.append(error)

    kinds = (call_by_handle, call_by_handle, call_by_grpc, call_by_grpc)
    callers = [threading.Thread(target=noting_errors, args=(kind,)) for kind in kinds]
    for caller in callers:
        caller.start()
    until(lambda: len(answers) > 100)
    for version in ("v1", "v2"):
        mesh.run(Versioned.bind(version), name="redeployed", route_prefix="/redeployed")
        count = len(answers)
        until(lambda count=count, version=version: len(answers) > count + 200 and answers[-1] == version)
    is_over.set()
    for caller in callers:
        caller.join()
    assert errors == []
    assert set(answers) == {"v0", "v1", "v2"}
    assert handle.remote().result(timeout_s=10) == "v2"


def test_a_constructor_that_fails_fails_the_deployment_with_its_reason(deploy: Deploy) -> None:
    """Error, status and callers all get the reason (items 66, 148, 167)."""
    with pytest.raises(RuntimeError, match="no such weights"):
        deploy(Stillborn.bind(), "stillborn")
    application = mesh.status().applications["stillborn"]
    assert application.status == "DEPLOY_FAILED"
    assert "no such weights" in application.deployments["Stillborn"].message
    handle = mesh.get_app_handle("stillborn")
    with pytest.raises(DeploymentUnavailableError, match="Stillborn"):
        handle.remote().result(timeout_s=20)


def test_delete_runs_the_destructor_once_and_ends_the_processes(tmp_path: Path) -> None:
    """`reconfigure` ran before, `__del__` after the last call (items 76, 85, 153)."""
    diary = tmp_path / "diary"
    mortal = Mortal.options(user_config={"mood": "calm"})
    handle = mesh.run(mortal.bind(diary), name="mortal", route_prefix="/mortal")
    assert handle.remote().result(timeout_s=10) == "alive"
    (replica,) = replicas("mortal", "Mortal")
    mesh.delete("mortal")
    assert "mortal" not in mesh.status().applications
    until(lambda: not Path(f"/proc/{replica.pid}").exists() or not is_replica(replica.pid))
    assert diary.read_text().splitlines() == ["config calm", "deleted"]
    with pytest.raises(MeshException, match="does not exist"):
        mesh.get_app_handle("mortal")
    mesh.delete("mortal")


def test_delete_lets_running_calls_finish(deploy: Deploy) -> None:
    """The call that is running gets its result (item 153)."""
    gate = deploy(Gate.bind(), "patience")
    patient = mesh.run(Patient.bind(gate), name="patient", route_prefix="/patient")
    call = patient.remote("last call")
    until(lambda: gate.entered.remote().result(timeout_s=10) == ["last call"])
    mesh.delete("patient", _blocking=False)
    until(lambda: [each.state for each in replicas("patient", "Patient")] == ["STOPPING"])
    gate.open.remote("last call").result(timeout_s=10)
    assert call.result(timeout_s=10) == "last call"
    mesh.delete("patient")


def test_starting_again_warns_of_options_that_cannot_change(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """The mesh keeps those that it has (item 52)."""
    gateway.start_mesh()
    assert "ignored" not in caplog.text
    before = mesh.status().gateways
    mesh.start(controller_options={"runtime_env": {"env_vars": {"ZONE": "a"}}})
    assert "ignored: controller_options" in caplog.text
    assert mesh.status().gateways == before


def test_the_control_port_turns_strangers_away(gateway: Gateway) -> None:
    address = ray_core.kv_get(CONTROLLER_ADDRESS_KEY)
    assert address is not None
    with grpc.insecure_channel(address.decode()) as channel:
        control = control_pb2_grpc.ControlStub(channel)
        for metadata in ((), ((TOKEN_METADATA, b"wrong"),)):
            with pytest.raises(grpc.RpcError) as caught:
                control.Shutdown(control_pb2.ShutdownRequest(), metadata=metadata, timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert mesh.status().proxies


def is_replica(pid: int) -> bool:
    """Ray may reuse the process for something else."""
    return any(command.startswith(f"{pid} ") for command in leftovers.mesh_processes())


def test_wrong_requests_are_refused_with_a_reason(deploy: Deploy) -> None:
    """Names, targets and prefixes are checked (items 63–65, 67)."""
    deploy(greet.bind(), "occupied")
    with pytest.raises(MeshException, match="occupied"):
        mesh.run(greet.bind(), name="intruder", route_prefix="/occupied")
    with pytest.raises(MeshException, match="non-empty"):
        mesh.run(greet.bind(), name="")
    with pytest.raises(TypeError, match="bind"):
        mesh.run(greet)
    with pytest.raises(ValueError, match="prefix"):
        mesh.run(greet.bind(), name="intruder", route_prefix="no-slash")
    assert "intruder" not in mesh.status().applications


OTHER_DRIVER = """
import json, mesh, ray, sys
ray.init(address=sys.argv[1], namespace="mesh", logging_level="warning", log_to_driver=False)
answer = mesh.get_app_handle("shared").remote("other driver").result(timeout_s=20)
status = mesh.status().applications["shared"].status
seven = mesh.deployment(ray_actor_options={"num_cpus": 0})(lambda: 7).options(name="seven")
own = mesh.run(seven.bind(), name="seven", route_prefix="/seven").remote().result(timeout_s=20)
print(json.dumps([answer, status, own]))
"""


def test_another_driver_finds_calls_and_deploys_applications(deploy: Deploy) -> None:
    """What it deployed outlives it (items 1, 52, 127)."""
    deploy(greet.bind(), "shared")
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-c", OTHER_DRIVER, address]
    root = Path(__file__).parents[2]
    try:
        finished = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=180, check=False)
        # Ray may print warnings of its own.
        assert '["hello other driver", "RUNNING", 7]' in finished.stdout.splitlines(), finished.stderr
        assert mesh.get_app_handle("seven").remote().result(timeout_s=10) == 7
    finally:
        mesh.delete("seven")


def test_an_old_handle_finds_the_application_that_was_deployed_again(deploy: Deploy) -> None:
    handle = deploy(Versioned.bind("first"), "again")
    assert handle.remote().result(timeout_s=30) == "first"
    mesh.delete("again")
    with pytest.raises(DeploymentUnavailableError, match="does not exist"):
        handle.remote().result(timeout_s=30)
    deploy(Versioned.bind("second"), "again")
    assert handle.remote().result(timeout_s=30) == "second"
