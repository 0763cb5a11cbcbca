"""The controller is killed in the middle of everything: calls go on, and the next one finishes what was begun.

That it may die between any two steps is shown in tests/sim/test_crashes.py; here it is a real process.
"""

import gc
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner

import mesh
from mesh.api import _run
from mesh.cli import main
from mesh.client import control_client
from mesh.cluster import ray_core
from mesh.cluster.keys import CONTROLLER_NAME, STATE_KEY
from mesh.cluster.ray_placement import list_actor_names
from mesh.controller.loop_watchdog import LoopWatchdog
from mesh.exceptions import ControllerUnavailableError
from mesh.settings import settings
from mesh.wire.io_thread import io_thread
from tests.e2e import leftovers
from tests.e2e.conftest import CPUS, Deploy, Gateway
from tests.e2e.controller_deaths import controller_pid, kill_controller
from tests.e2e.gate import Gate, small
from tests.e2e.load import Load
from tests.e2e.metrics import value
from tests.e2e.replicas import replicas, running
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

Handle = mesh.DeploymentHandle[Any]


@small(num_replicas=2, max_ongoing_requests=100)
class Steady(shop_pb2_grpc.ShopServicer):
    async def __call__(self) -> int:
        return os.getpid()

    async def Price(self, request: Any, context: Any) -> Any:
        return shop_pb2.Item(name=str(os.getpid()))


@small(num_replicas=2, max_ongoing_requests=100)
class Slow:
    """Its constructor writes down that it runs and then waits for a file."""

    def __init__(self, directory: Path, version: str) -> None:
        with (directory / f"{version}.began").open("a") as began:
            began.write(f"{os.getpid()}\n")
        while not (directory / f"{version}.go").exists():
            time.sleep(0.01)
        self._version = version

    async def __call__(self) -> str:
        return self._version


@mesh.deployment(ray_actor_options={"num_cpus": 0}, graceful_shutdown_timeout_s=20)
class Patient:
    def __init__(self, gate: Handle) -> None:
        self._gate = gate

    async def __call__(self, label: str) -> str:
        return await self._gate.wait.remote(label)


@contextmanager
def in_background(work: Callable[[], Any]) -> Iterator[list[Any]]:
    """Gives a list that gets the outcome; the end of the block waits for it."""
    outcome: list[Any] = []

    def noted() -> None:
        try:
            outcome.append(work())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=noted)
    thread.start()
    yield outcome
    thread.join(timeout=40)
    assert outcome
    assert not isinstance(outcome[0], Exception), outcome


def began(directory: Path, version: str) -> list[int]:
    path = directory / f"{version}.began"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def pids(app: str, deployment: str) -> set[int]:
    return {replica.pid for replica in running(app, deployment).values()}


def ids(app: str, deployment: str) -> set[str]:
    return {replica.replica_id for replica in replicas(app, deployment)}


def test_calls_go_on_and_the_api_waits_while_there_is_no_controller(deploy: Deploy, gateway: Gateway) -> None:
    """The same processes serve before and after (items 180, 181, 183)."""
    handle = deploy(Steady.bind(), "steady")
    before = until(lambda: found if len(found := pids("steady", "Steady")) == 2 else None)
    starts, ages_s = controller_restarts(), ages("steady", "Steady")
    with Load(lambda: handle.remote().result(timeout_s=20), grpc_price(gateway, "steady")) as load:
        load.until_answered(50)
        for _ in range(2):
            kill_controller()
            load.until_answered(50)
            assert mesh.status().applications["steady"].status == "RUNNING"
            load.until_answered(50)
        kill_controller()
        again = mesh.run(Steady.bind(), name="steady-too", route_prefix="/steady-too")
        assert again.remote().result(timeout_s=10)
        mesh.delete("steady-too")
    assert load.errors == []
    assert controller_restarts() == starts + 3
    assert all(age_s > ages_s[replica_id] for replica_id, age_s in ages("steady", "Steady").items())
    until(lambda: value(gateway, "mesh_controller_restarts") == starts + 3)
    assert pids("steady", "Steady") == before
    assert {int(answer) for answer in load.answers} == before


def ages(app: str, deployment: str) -> dict[str, float]:
    return {replica_id: replica.age_s for replica_id, replica in running(app, deployment).items()}


def controller_restarts() -> int:
    controller = mesh.status().controller
    assert controller is not None
    return controller.restarts


def grpc_price(gateway: Gateway, app: str) -> Callable[[], str]:
    channel = grpc.insecure_channel(gateway.grpc_address)
    stub = shop_pb2_grpc.ShopStub(channel)
    return lambda: stub.Price(shop_pb2.Item(), metadata=(("application", app),), timeout=20).name


def test_a_deploy_is_finished_with_the_replicas_that_were_starting(tmp_path: Path) -> None:
    with in_background(lambda: mesh.run(Slow.bind(tmp_path, "v1"), name="slow", route_prefix="/slow")):
        until(lambda: len(began(tmp_path, "v1")) == 2)
        kill_controller()
        until(lambda: [each.state for each in replicas("slow", "Slow")] == ["STARTING"] * 2)
        (tmp_path / "v1.go").touch()
    assert pids("slow", "Slow") == set(began(tmp_path, "v1"))
    assert len(began(tmp_path, "v1")) == 2, "a replica was started twice"
    mesh.delete("slow")


def test_replicas_that_wait_for_room_wait_on_and_get_it() -> None:
    """They have no process that could be asked who they are."""
    large = Steady.options(num_replicas=1, ray_actor_options={"num_cpus": CPUS / 2 + 1})
    mesh.run(large.bind(), name="there", route_prefix="/there")
    _run(large.bind(), name="waiting", route_prefix="/waiting", _blocking=False)
    before = until(lambda: ids("waiting", "Steady"))
    # Before that it waits for the process that has asked for it, and ends with that one.
    until(lambda: before <= {name.rpartition("#")[2] for name in list_actor_names("PENDING_CREATION")})
    kill_controller()
    assert ids("waiting", "Steady") == before
    mesh.delete("there")
    until(lambda: running("waiting", "Steady").keys() == before, timeout_s=30)
    mesh.delete("waiting")


@small(isolate_user_loop=False)
class Blocking:
    async def __call__(self, directory: Path) -> int:
        (directory / "entered").touch()
        while not (directory / "go").exists():
            time.sleep(0.01)  # noqa: ASYNC251 - it has to block
        return os.getpid()


def test_a_replica_whose_code_blocks_its_wire_says_who_it_is(deploy: Deploy, tmp_path: Path) -> None:
    handle = deploy(Blocking.bind(), "blocking")
    before = until(lambda: pids("blocking", "Blocking"))
    call = handle.remote(tmp_path)
    until((tmp_path / "entered").exists)
    kill_controller()
    until(lambda: pids("blocking", "Blocking") == before)
    (tmp_path / "go").touch()
    assert {call.result(timeout_s=20)} == before


def test_an_update_is_finished_without_a_failed_call(tmp_path: Path) -> None:
    (tmp_path / "v1.go").touch()
    handle: Any = mesh.run(Slow.bind(tmp_path, "v1"), name="updated", route_prefix="/updated")
    with Load(lambda: handle.remote().result(timeout_s=20)) as load:
        load.until_answered(50)
        with in_background(lambda: mesh.run(Slow.bind(tmp_path, "v2"), name="updated", route_prefix="/updated")):
            until(lambda: began(tmp_path, "v2"))
            kill_controller()
            load.until_answered(50)
            (tmp_path / "v2.go").touch()
            until(lambda: len(pids("updated", "Slow") & set(began(tmp_path, "v2"))) >= 1)
            kill_controller()
        load.until_answered(50)
    assert load.errors == []
    assert set(load.answers) == {"v1", "v2"}
    assert Counter(began(tmp_path, "v2")) == Counter(pids("updated", "Slow")), "a replica was started twice"
    mesh.delete("updated")


def test_a_delete_is_finished_and_the_last_call_too(deploy: Deploy) -> None:
    gate = deploy(Gate.bind(), "recovery-gate")
    patient: Any = mesh.run(Patient.bind(gate), name="leaving", route_prefix="/leaving")
    call = patient.remote("last")
    until(lambda: gate.entered.remote().result(timeout_s=10) == ["last"])
    mesh.delete("leaving", _blocking=False)
    until(lambda: [each.state for each in replicas("leaving", "Patient")] == ["STOPPING"])
    kill_controller()
    until(lambda: [each.state for each in replicas("leaving", "Patient")] == ["STOPPING"])
    gate.open.remote("last").result(timeout_s=10)
    assert call.result(timeout_s=10) == "last"
    mesh.delete("leaving")
    assert "leaving" not in mesh.status().applications


def test_a_controller_that_cannot_start_says_why_and_recovers_by_itself(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = deploy(Steady.bind(), "unreadable")
    before = until(lambda: found if len(found := pids("unreadable", "Steady")) == 2 else None)
    state = ray_core.kv_get(STATE_KEY)
    assert state is not None
    with Load(lambda: handle.remote().result(timeout_s=20)) as load:
        load.until_answered(10)
        ray_core.kv_put(STATE_KEY, b"\xff no protobuf")
        kill_controller()
        with pytest.raises(ControllerUnavailableError, match=rf"its start fails: UnreadableStateError: .*{STATE_KEY}"):
            control_client_with(timeout_s=12.0, monkeypatch=monkeypatch).status()
        ray_core.kv_put(STATE_KEY, state)
        until(lambda: mesh.status().applications["unreadable"].status == "RUNNING", timeout_s=30)
        load.until_answered(10)
    assert load.errors == []
    assert pids("unreadable", "Steady") == before


def control_client_with(*, timeout_s: float, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Of a little patience."""
    impatient = replace(settings(), process=replace(settings().process, control_timeout_s=timeout_s))
    monkeypatch.setattr(control_client, "settings", lambda: impatient)
    return control_client.ControlClient()


def test_a_shutdown_is_finished(gateway: Gateway) -> None:
    """A call in progress holds it up at the gateway; the controller dies, and the next one goes on."""
    gate: Any = mesh.run(Gate.bind(), name="ending-gate", route_prefix="/ending-gate")
    mesh.run(Steady.bind(), name="ending", route_prefix="/ending")
    mesh.run(SlowShop.bind(gate), name="slow-shop", route_prefix="/slow-shop")
    with grpc.insecure_channel(gateway.grpc_address) as channel:
        call = shop_pb2_grpc.ShopStub(channel).Price.future(
            shop_pb2.Item(name="shutdown"), metadata=(("application", "slow-shop"),), timeout=30
        )
        until(lambda: gate.entered.remote().result(timeout_s=10) == ["shutdown"])
        with in_background(mesh.shutdown):
            until(lambda: set(mesh.status().proxies.values()) == {"DRAINING"})
            kill_controller()
            until(lambda: set(mesh.status().proxies.values()) == {"DRAINING"})
            gate.open.remote("shutdown").result(timeout_s=10)
            assert call.result().name == "shutdown"
    assert ray_core.kv_keys("") == []
    until(lambda: not leftovers.mesh_processes())
    gateway.start_mesh()


@small()
class SlowShop(shop_pb2_grpc.ShopServicer):
    def __init__(self, gate: Handle) -> None:
        self._gate = gate

    async def Price(self, request: Any, context: Any) -> Any:
        return shop_pb2.Item(name=await self._gate.wait.remote(request.name))


def test_a_controller_that_hangs_is_restarted_and_says_where_it_hung(deploy: Deploy) -> None:
    """Its event loop blocks without end: calls go on, and the next one adopts the replicas and has the reason."""
    handle = deploy(Steady.bind(), "hung")
    before = until(lambda: found if len(found := pids("hung", "Steady")) == 2 else None)
    pid = controller_pid()
    with Load(lambda: handle.remote().result(timeout_s=20)) as load:
        # The reference keeps the call alive.
        call = ray_core.find_actor(CONTROLLER_NAME).__ray_call__.remote(hang_with_an_impatient_watchdog())
        until(lambda: controller_pid() not in (0, pid), timeout_s=30)
        load.until_answered(10)
        assert pids("hung", "Steady") == before
    del call
    assert (load.errors, set(load.answers)) == ([], before)
    assert any("the event loop has hung for" in event.text for event in control_client.ControlClient().events())
    assert "in blocks_here" in CliRunner().invoke(main.main, ["logs", "--last", "5000"]).output


def hang_with_an_impatient_watchdog() -> Callable[[object], None]:
    """A function for the controller's process, which knows no module of the tests: hence one that is sent by value."""

    def hang(actor: object) -> None:
        (watchdog,) = (each for each in gc.get_objects() if isinstance(each, LoopWatchdog))
        watchdog._limits = replace(watchdog._limits, hang_timeout_s=2.0)

        def blocks_here() -> None:
            threading.Event().wait()

        io_thread().post(blocks_here)

    return hang
