"""What a long-lived process keeps of deployments that were deleted: nothing, at either end of its Sync stream."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest

from gateway.gateway_listener import GatewayListener
from gateway.ops.grpc_health import Health
from gateway.ops.grpc_metrics import GrpcMetrics
from gateway.requests.routes import read_routes
from mesh.cluster import ray_core
from mesh.cluster.keys import CONTROLLER_ADDRESS_KEY
from mesh.controller.control_servicer import ControlServicer
from mesh.controller.desired.desired_state import Desired
from mesh.controller.event_log import EventLog
from mesh.controller.report.mesh_picture import ControllerIdentity
from mesh.controller.report.publisher import Publisher
from mesh.exceptions import DeploymentUnavailableError
from mesh.handle import DeploymentHandle
from mesh.membership.mesh_process import CALLER, MeshProcess
from mesh.routing import router as router_module
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings
from mesh.v1 import control_pb2, control_pb2_grpc
from mesh.wire import telemetry
from mesh.wire.endpoints import generic_handlers, start_server
from mesh.wire.mesh_token import forget_token
from tests.unit.fakes.small_mesh import TOKEN, do_on_io, mesh_of, on_io, router_of, until

pytestmark = pytest.mark.timeout(120)
_CYCLES = 1000
_AT_ONCE = 50
_METHOD = "/shop.Store/Get"
IDENTITY = ControllerIdentity(pid=1, node_id="n1", started_unix_s=0.0)


class ControlPlane:
    """The controller's own publisher and Sync stream, without the loop that decides."""

    def __init__(self, kv: dict[str, bytes]) -> None:
        self.kv = kv
        self.publisher = Publisher(first_version=1)
        self._server: grpc.aio.Server | None = None
        self._deployed: dict[DeploymentKey, control_pb2.DeploymentSnapshot] = {}
        on_io(self._start())

    def deploy(self, *keys: DeploymentKey, replicas: tuple[Any, ...] = ()) -> None:
        for key in keys:
            snapshot = control_pb2.DeploymentSnapshot(
                deployment={"app": key.app, "name": key.name}, max_ongoing_requests=100, max_queued_requests=-1
            )
            for replica in replicas:
                snapshot.replicas.add(replica_id=replica.info.replica_id, address=replica.info.address)
            self._deployed[key] = snapshot
        self._publish()

    def delete(self, *keys: DeploymentKey) -> None:
        for key in keys:
            del self._deployed[key]
        self._publish()

    @property
    def topics(self) -> int:
        return sum(len(subscriber.topics) for subscriber in self.publisher._subscribers)

    def stop(self) -> None:
        assert self._server is not None
        on_io(self._server.stop(None))

    def _publish(self) -> None:
        do_on_io(lambda: self.publisher.publish(Desired(), dict(self._deployed), control_pb2.RouteTable()))

    async def _start(self) -> None:
        autoscaler = SimpleNamespace(report_load=lambda *loads: None, forget_stream=lambda subscriber: None)
        loop: Any = SimpleNamespace(autoscaler=autoscaler, picture=None)
        servicer = ControlServicer(loop, self.publisher, lambda: 0.0, IDENTITY, EventLog(lambda: 0.0))
        handlers = generic_handlers(control_pb2_grpc.add_ControlServicer_to_server, servicer)
        self._server, port = await start_server([handlers], "127.0.0.1")
        self.kv[CONTROLLER_ADDRESS_KEY] = f"127.0.0.1:{port}".encode()


class Gate:
    """Holds up calls until it is opened."""

    def __init__(self) -> None:
        self._is_open = threading.Event()
        self.waiting = 0

    def __call__(self) -> str:
        self.waiting += 1
        assert self._is_open.wait(30)
        return "through"

    def echo(self, value: str) -> str:
        return value

    def open(self) -> None:
        self._is_open.set()


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlPlane]:
    kv = {"token": TOKEN}
    monkeypatch.setattr(ray_core, "kv_get", kv.get)
    monkeypatch.setattr(ray_core, "node_id", lambda: "node")
    monkeypatch.setattr(ray_core, "node_ip", lambda: "127.0.0.1")
    monkeypatch.setattr(ray_core, "node_zone", lambda: "")
    forget_token()
    control = ControlPlane(kv)
    yield control
    control.stop()
    forget_token()


@pytest.fixture
def process(control: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Iterator[MeshProcess]:
    process = do_on_io(MeshProcess, CALLER)
    on_io(process.start())
    monkeypatch.setattr("mesh.caller.handle_family.mesh_process", lambda: process)
    linger_for(0.0, monkeypatch)
    yield process
    on_io(process.stop())


def linger_for(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = replace(settings(), routing=replace(settings().routing, router_linger_s=seconds))
    monkeypatch.setattr(router_module, "settings", lambda: changed)


def until_reported(process: MeshProcess, condition: Callable[[], bool], what: str) -> None:
    """Wait without the pauses of the Sync stream."""

    def hurried() -> bool:
        do_on_io(process._sync.wake)
        return condition()

    until(hurried, what)


def call(key: DeploymentKey) -> Any:
    handle: DeploymentHandle[Any] = DeploymentHandle(key.name, key.app)
    return handle.remote()


def series() -> int:
    gc.collect()  # what earlier tests have left may go at any moment
    return sum(len(list(samples)) for _, samples in telemetry.collect())


def keys_of_round(number: int) -> list[DeploymentKey]:
    return [DeploymentKey(f"app-{number}-{each}", "Store") for each in range(_AT_ONCE)]


def test_a_thousand_deploys_and_deletes_leave_nothing(process: MeshProcess, control: ControlPlane) -> None:
    series_before, sources_before = series(), len(telemetry._sources)
    for number in range(_CYCLES // _AT_ONCE):
        keys = keys_of_round(number)
        control.deploy(*keys)
        calls = [call(key) for key in keys]
        until(lambda: all(key in process._snapshots for key in keys), "the snapshots")  # noqa: B023
        control.delete(*keys)
        for each in calls:
            with pytest.raises(DeploymentUnavailableError, match="does not exist"):
                each.result(timeout_s=10)
    del calls, each
    until_reported(process, lambda: not process._routers and not process._snapshots, "the routers to go")
    until_reported(process, lambda: not control.topics, "the subscriptions to end")
    assert not control.publisher._snapshots
    assert (series(), len(telemetry._sources)) == (series_before, sources_before)
    assert not process._sync._subscribed
    assert not process._sync._reporter._averages


def test_a_handle_that_is_kept_finds_what_is_deployed_again(process: MeshProcess, control: ControlPlane) -> None:
    key = DeploymentKey("shop", "Store")
    with mesh_of(lambda: "old") as old, mesh_of(lambda: "new") as new:
        handle: DeploymentHandle[Any] = DeploymentHandle(key.name, key.app)
        control.deploy(key, replicas=tuple(old.replicas))
        assert handle.remote().result(timeout_s=10) == "old"
        control.delete(key)
        until(lambda: not handle.running_replicas_populated(), "the news")
        for _ in range(3):
            until_reported(process, lambda: True, "a report")
        with pytest.raises(DeploymentUnavailableError):
            handle.remote().result(timeout_s=10)
        control.deploy(key, replicas=tuple(new.replicas))
        until(handle.running_replicas_populated, "the news")
        assert handle.remote().result(timeout_s=10) == "new"
        assert process.use(key, handle) is handle._router


def test_who_comes_after_the_router_was_dropped_gets_a_new_one(process: MeshProcess, control: ControlPlane) -> None:
    key = DeploymentKey("shop", "Store")
    with pytest.raises(DeploymentUnavailableError):
        call(key).result(timeout_s=10)
    until_reported(process, lambda: key not in process._routers, "the router to go")
    with mesh_of(lambda: "here") as mesh:
        control.deploy(key, replicas=tuple(mesh.replicas))
        assert call(key).result(timeout_s=10) == "here"


def test_calls_of_what_does_not_exist_ask_the_controller_once(
    process: MeshProcess, control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    linger_for(3600.0, monkeypatch)
    key = DeploymentKey("shop", "Store")
    routers = set()
    for _ in range(20):
        with pytest.raises(DeploymentUnavailableError):
            call(key).result(timeout_s=10)
        do_on_io(process.drop_deleted_routers)
        routers.add(process._routers[key])
    assert len(routers) == 1


def test_a_call_on_its_way_to_a_dropped_router_hears_that_nothing_is_there(
    process: MeshProcess, control: ControlPlane
) -> None:
    key = DeploymentKey("shop", "Store")
    router = router_of(process, key)
    until_reported(process, lambda: router.is_closed, "the router to go")
    handle: DeploymentHandle[Any] = DeploymentHandle(key.name, key.app)
    handle._family.router = router
    router.is_closed = False  # as the caller's thread saw it
    response = do_on_io(lambda: (handle.remote(), setattr(router, "is_closed", True)))[0]
    with pytest.raises(DeploymentUnavailableError, match="does not exist"):
        response.result(timeout_s=10)


def test_calls_under_way_keep_the_router_of_a_deleted_deployment(process: MeshProcess, control: ControlPlane) -> None:
    """One runs on a replica; one waits for its arguments, and for what is deployed again meanwhile."""
    key, slow_key = DeploymentKey("shop", "Store"), DeploymentKey("shop", "Slow")
    with mesh_of(Gate()) as mesh:
        gate: Gate = mesh.replicas[0].target  # type: ignore[assignment]
        control.deploy(key, slow_key, replicas=tuple(mesh.replicas))
        running = call(slow_key)
        until(lambda: gate.waiting == 1, "the call")
        handle: DeploymentHandle[Any] = DeploymentHandle(key.name, key.app)
        collecting = handle.echo.remote(running)
        del handle
        router = process._routers[key]
        until(lambda: router.counts.collecting == 1, "the arguments to be waited for")
        control.delete(key, slow_key)
        until(lambda: not router.has_replicas, "the news")
        do_on_io(process.drop_deleted_routers)
        assert process._routers.keys() == {key, slow_key}
        control.deploy(key, replicas=tuple(mesh.replicas))
        until(lambda: router.has_replicas, "the news")
        gate.open()
        assert collecting.result(timeout_s=10) == "through"
        del running, collecting
        until_reported(process, lambda: process._routers.keys() == {key}, "the router of the deleted one to go")


def test_a_router_that_its_last_handle_closes_meanwhile_is_dropped_once(process: MeshProcess) -> None:
    """The I/O loop has found it superfluous, then a thread shuts the handle down."""
    handle: DeploymentHandle[Any] = DeploymentHandle("Store", "shop")
    router = process.use(DeploymentKey("shop", "Store"), handle)
    process.leave(router, handle).result(10)
    later = router_of(process, router.key)
    do_on_io(process._drop, router)
    assert process._routers == {router.key: later}


def test_a_gateway_uses_what_its_routes_name(process: MeshProcess, control: ControlPlane) -> None:
    listener = GatewayListener(process.use, GrpcMetrics(), Health().handler())
    keys = keys_of_round(0)
    for key in keys:
        control.deploy(key)
        do_on_io(listener.set_routes, read_routes(route_table(key)))
        until(lambda: key in process._snapshots, "the snapshot")  # noqa: B023
        control.delete(key)
        until(lambda: process._snapshots[key].is_missing, "the news")  # noqa: B023
        do_on_io(process.drop_deleted_routers)
        assert process._routers.keys() == {key}  # until the routes change too
    do_on_io(listener.set_routes, read_routes(control_pb2.RouteTable()))
    until_reported(process, lambda: not process._routers and not control.topics, "the routers to go")


def route_table(key: DeploymentKey) -> control_pb2.RouteTable:
    table = control_pb2.RouteTable(version=1)
    table.routes.add(app=key.app, ingress=key.name, grpc_methods=[control_pb2.GrpcMethod(full_name=_METHOD)])
    return table
