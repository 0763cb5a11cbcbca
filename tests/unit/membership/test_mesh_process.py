"""The Sync stream against a controller that is a stand-in on a real socket: snapshots, reconnects, a new token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from mesh.cluster import ray_core
from mesh.cluster.keys import CONTROLLER_ADDRESS_KEY
from mesh.context import ReplicaContext, set_replica_context
from mesh.exceptions import DisconnectedError, MeshException
from mesh.handle import DeploymentHandle
from mesh.membership import mesh_process
from mesh.membership.mesh_process import CALLER, REPLICA, MeshProcess
from mesh.routing.link_pool import CallingReplica
from mesh.routing.load_reports import Reading
from mesh.routing.router import Router
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import common_pb2, control_pb2
from mesh.wire.endpoints import start_server
from mesh.wire.mesh_token import TOKEN_METADATA, forget_token
from tests.unit.fakes.small_mesh import DEADLINE_S, KEY, do_on_io, on_io, router_of, until

pytestmark = pytest.mark.timeout(60)


class Controller:
    """Answers every subscription with one snapshot; knows one token."""

    def __init__(self, kv: dict[str, bytes], token: bytes) -> None:
        self.kv = kv
        self.kv["token"] = token
        self.token = token
        self.refused = 0
        self.subscriptions: list[DeploymentKey] = []
        self.processes: list[str] = []
        self.loads: list[control_pb2.DeploymentLoad] = []
        self.load_interval_s = 0.0
        self.unavailable = f"said by the controller with {token.decode()}"
        self._server: grpc.aio.Server | None = None
        on_io(self._start())

    async def Sync(self, reports: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        if dict(context.invocation_metadata()).get(TOKEN_METADATA) != self.token:
            self.refused += 1
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong token")
        async for data in reports:
            report = control_pb2.Report.FromString(data)
            if report.HasField("hello"):
                self.processes.append(report.hello.process_id)
            for name in report.subscribe:
                self.subscriptions.append(DeploymentKey(name.app, name.name))
                snapshot = control_pb2.DeploymentSnapshot(
                    deployment=common_pb2.DeploymentId(app=name.app, name=name.name),
                    unavailable=self.unavailable,
                    load_interval_s=self.load_interval_s,
                    max_queued_requests=-1,
                )
                yield control_pb2.Update(snapshots=[snapshot]).SerializeToString()
            self.loads.extend(report.loads)

    def stop(self) -> None:
        if self._server is not None:
            on_io(self._server.stop(None))

    async def _start(self) -> None:
        handler: Any = grpc.stream_stream_rpc_method_handler(self.Sync)
        handlers = grpc.method_handlers_generic_handler("mesh.v1.Control", {"Sync": handler})
        self._server, port = await start_server([handlers], "127.0.0.1")
        self.kv[CONTROLLER_ADDRESS_KEY] = f"127.0.0.1:{port}".encode()


@pytest.fixture
def kv(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    entries: dict[str, bytes] = {}
    monkeypatch.setattr(ray_core, "kv_get", entries.get)
    monkeypatch.setattr(ray_core, "node_id", lambda: "node")
    monkeypatch.setattr(ray_core, "node_ip", lambda: "127.0.0.1")
    monkeypatch.setattr(ray_core, "node_zone", lambda: "")
    monkeypatch.setattr(ray_core, "is_connected", lambda: True)
    forget_token()
    yield entries
    forget_token()


@pytest.fixture
def controller(kv: dict[str, bytes]) -> Iterator[Controller]:
    controller = Controller(kv, b"the old token")
    yield controller
    controller.stop()


@pytest.fixture
def process(controller: Controller) -> Iterator[MeshProcess]:
    process = do_on_io(MeshProcess, CALLER)
    on_io(process.start())
    yield process
    on_io(process.stop())


def is_reported(router: Any, token: str) -> bool:
    return router.listing.snapshot is not None and router.listing.snapshot.unavailable.endswith(token)


def test_a_router_gets_the_snapshot_of_its_deployment(process: MeshProcess, controller: Controller) -> None:
    """By the one stream that its process has (item 184)."""
    router = router_of(process, KEY)
    assert router_of(process, KEY) is router
    until(lambda: is_reported(router, "the old token"), "the snapshot")
    assert controller.subscriptions == [KEY]
    assert controller.processes == [process.process_id]


@pytest.mark.usefixtures("controller")
def test_routers_of_a_replica_know_its_version() -> None:
    """Also with a new token: their calls stay with it beside a canary."""
    assert do_on_io(MeshProcess, CALLER).identity.replica is None
    set_replica_context(ReplicaContext("shop", "Front", "r1", code_version="v2"))
    try:
        process = do_on_io(MeshProcess, REPLICA)
    finally:
        set_replica_context(None)
    on_io(process.renew_token())
    router = router_of(process, KEY)
    assert router.pool.identity.replica == CallingReplica("shop", "Front", "v2")
    on_io(process.stop())


def test_a_new_router_knows_what_the_first_knew(process: MeshProcess, controller: Controller) -> None:
    first = process.use(KEY, controller)
    until(lambda: is_reported(first, "the old token"), "the snapshot")
    process.leave(first, controller).result(10)
    assert first.is_closed
    second = router_of(process, KEY)
    assert second is not first
    until(lambda: is_reported(second, "the old token"), "the snapshot")


def test_a_handle_that_is_shut_down_takes_the_router_from_no_other(
    process: MeshProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A router ends with its last handle (item 12)."""
    monkeypatch.setattr("mesh.caller.handle_family.mesh_process", lambda: process)
    monkeypatch.setattr("mesh.caller.handle_family.joined_process", lambda: process)
    first, second = (DeploymentHandle[Any](KEY.name, KEY.app) for _ in range(2))
    router = first._family.connect()
    assert second._family.connect() is router
    on_io(first.shutdown_async())
    assert not router.is_closed
    first.shutdown()
    on_io(second.shutdown_async())
    assert router.is_closed
    second.shutdown()
    assert router_of(process, KEY) is not router


@pytest.mark.parametrize("turns", range(6))
def test_news_do_not_keep_the_stream_from_ending(process: MeshProcess, controller: Controller, turns: int) -> None:
    """The news and the end meet in the same turn of the loop, whichever it is."""
    router_of(process, KEY)
    until(lambda: controller.subscriptions, "the stream")

    async def scenario() -> None:
        process._sync.wake()
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.wait_for(process._sync.stop(), 30)

    on_io(scenario())
    assert controller.subscriptions == [KEY]


def test_a_change_of_replicas_is_announced_once_routers_know_it(process: MeshProcess) -> None:
    router = router_of(process, KEY)
    # The controller's own snapshot is announced too, whenever it comes.
    until(lambda: is_reported(router, "the old token"), "the snapshot")
    seen: list[bool] = []
    do_on_io(process.on_replicas, lambda: seen.append(router.has_replicas))
    snapshot = control_pb2.DeploymentSnapshot(deployment={"app": KEY.app, "name": KEY.name}, version=9)
    snapshot.replicas.add(replica_id="r", address="127.0.0.1:1")
    do_on_io(process.apply, control_pb2.Update(snapshots=[snapshot]))
    assert seen[-1:] == [True]
    count = len(seen)
    do_on_io(process.apply, control_pb2.Update(routes=control_pb2.RouteTable()))
    assert len(seen) == count


def test_a_gateway_s_tables_carry_all_descriptors_that_they_name(process: MeshProcess) -> None:
    """The controller sends each set once on a stream."""

    def update(*digests: str, new: str = "") -> control_pb2.Update:
        routes = [control_pb2.Route(app=digest, descriptors_digest=digest) for digest in digests]
        sets = [control_pb2.DescriptorSet(digest=each, serialised=each.encode()) for each in new]
        return control_pb2.Update(routes=control_pb2.RouteTable(routes=routes, descriptor_sets=sets))

    received: list[dict[str, bytes]] = []

    def listen(table: control_pb2.RouteTable) -> None:
        received.append({each.digest: each.serialised for each in table.descriptor_sets})

    do_on_io(process.apply, update("a", "b", new="ab"))
    do_on_io(process.on_routes, listen)
    do_on_io(process.apply, update("b", "c", new="c"))
    do_on_io(process.apply, update("", "c"))
    do_on_io(process.apply, update("a"))
    assert received == [{"a": b"a", "b": b"b"}, {"b": b"b", "c": b"c"}, {"c": b"c"}, {}]


def test_a_controller_that_restarts_is_found_again(process: MeshProcess, controller: Controller) -> None:
    router = router_of(process, KEY)
    until(lambda: is_reported(router, "the old token"), "the snapshot")
    controller.stop()
    on_io(controller._start())
    until(lambda: len(controller.subscriptions) > 1, "the subscription after the restart")
    assert controller.subscriptions == [KEY, KEY]
    assert controller.processes == [process.process_id] * 2


def test_a_mesh_that_was_started_again_is_joined_with_its_new_token(
    process: MeshProcess, controller: Controller, kv: dict[str, bytes]
) -> None:
    router = router_of(process, KEY)
    until(lambda: is_reported(router, "the old token"), "the snapshot")
    controller.stop()
    del kv["token"]  # the mesh is down for a while
    restarted = Controller(kv, b"the new token")
    try:
        until(lambda: is_reported(router, "the new token"), "the snapshot of the new mesh")
        assert restarted.refused >= 1
        assert router.pool.identity.token == b"the new token"
        assert router_of(process, DeploymentKey("shop", "Other")).pool.identity.token == b"the new token"
    finally:
        restarted.stop()


def test_a_stream_survives_whatever_ray_raises(
    process: MeshProcess, controller: Controller, monkeypatch: pytest.MonkeyPatch, kv: dict[str, bytes]
) -> None:
    failures = iter([RuntimeError("the GCS restarts"), SystemError("so it does")])

    def kv_get(key: str) -> bytes | None:
        for failure in failures:
            raise failure
        return kv.get(key)

    router = router_of(process, KEY)
    until(lambda: is_reported(router, "the old token"), "the snapshot")
    monkeypatch.setattr(ray_core, "kv_get", kv_get)
    controller.stop()
    on_io(controller._start())
    until(lambda: len(controller.subscriptions) > 1, "the stream to be there again")
    assert next(failures, None) is None


def test_a_report_that_cannot_be_made_is_logged_once_and_stops_no_other(
    process: MeshProcess, controller: Controller, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Reading:
        raise ZeroDivisionError("no reading")

    process.own_reading = fail
    until(lambda: "no reading" in caplog.text, "the complaint")
    process.own_reading = lambda: Reading(deployment=KEY, interval_s=0.02, executing=3)
    until(lambda: controller.loads, "reports on a new stream")
    assert len([record for record in caplog.records if "no reading" in record.message]) == 1


def test_a_process_reports_its_load_as_long_as_there_is_any(process: MeshProcess, controller: Controller) -> None:
    """The last report says that there is none (items 227, 233)."""
    executing = 3
    process.own_reading = lambda: Reading(deployment=KEY, interval_s=0.02, executing=executing)
    until(lambda: len(controller.loads) > 3, "reports")
    assert {load.executing for load in controller.loads} == {3.0}
    executing = 0
    until(lambda: controller.loads[-1].executing == 0.0, "the last report")


def test_a_new_controller_gets_the_load_immediately(process: MeshProcess, controller: Controller) -> None:
    """It does not have to wait for the interval (item 183)."""
    process.own_reading = lambda: Reading(deployment=KEY, interval_s=3600.0, executing=3)
    until(lambda: len(controller.loads) == 1, "the first report")
    controller.stop()
    on_io(controller._start())
    until(lambda: len(controller.loads) > 1, "the report to the new controller")
    assert [load.executing for load in controller.loads] == [3.0, 3.0]


def test_a_call_that_waits_for_the_first_replica_is_reported_at_once(
    process: MeshProcess, controller: Controller
) -> None:
    """Scaling from zero does not wait for the interval (item 231)."""
    controller.load_interval_s = 3600.0
    controller.unavailable = ""
    router = router_of(process, KEY)
    until(lambda: router.reading().interval_s > 0, "the snapshot")
    handle: DeploymentHandle[Any] = DeploymentHandle(KEY.name, KEY.app)
    handle._family.router = router
    call = handle.remote()
    until(lambda: bool(controller.loads), "the report")
    assert controller.loads[0].queued == 1.0
    call.cancel()


def test_once_ray_is_shut_down_waiting_calls_fail_and_later_ones_say_what_to_do(
    process: MeshProcess, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controller has ended with the Ray that this program had started."""
    controller.unavailable = ""
    monkeypatch.setattr(mesh_process, "_instance", process)
    handle: DeploymentHandle[Any] = DeploymentHandle(KEY.name, KEY.app)
    waiting = handle.remote()
    until(lambda: controller.subscriptions, "the subscription")
    shut_ray_down(monkeypatch)
    controller.stop()
    with pytest.raises(DisconnectedError, match=r"Ray was shut down .* mesh\.run\(\)"):
        waiting.result(timeout_s=DEADLINE_S)
    with pytest.raises(MeshException, match=r"call mesh\.start\(\) or ray\.init\(\) first"):
        handle.remote()
    until(lambda: process._sync.has_ended, "the end of the membership")
    late = process.use(KEY, handle)  # by a thread that had asked for the membership before
    until(lambda: late.is_closed, "the end of the router")


@pytest.mark.parametrize(("kind", "link_count"), [(CALLER, 1), (REPLICA, 0)])
def test_who_has_a_replica_or_ends_with_its_ray_stays_when_ray_is_shut_down(
    process: MeshProcess, monkeypatch: pytest.MonkeyPatch, kind: control_pb2.ProcessKind, link_count: int
) -> None:
    """The cluster may go on without this program, and then its replicas answer."""
    router = router_of(process, KEY)
    monkeypatch.setattr(process, "kind", kind)
    monkeypatch.setattr(Router, "link_count", link_count)
    do_on_io(process.leave_ray)
    assert not do_on_io(lambda: router.listing.why_closed)
    assert not router.is_closed


def shut_ray_down(monkeypatch: pytest.MonkeyPatch) -> None:
    def kv_get(key: str) -> bytes:
        raise AttributeError("'NoneType' object has no attribute 'internal_kv_get'")

    monkeypatch.setattr(ray_core, "kv_get", kv_get)
    monkeypatch.setattr(ray_core, "is_connected", lambda: False)


def test_the_process_leaves_nothing_running(kv: dict[str, bytes]) -> None:
    controller = Controller(kv, b"the old token")
    process = do_on_io(MeshProcess, CALLER)
    on_io(process.start())
    router = router_of(process, KEY)
    on_io(process.stop())
    controller.stop()

    async def tasks() -> list[str]:
        return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith(("sync", "link-"))]

    assert router.is_closed
    until(lambda: not on_io(tasks()), "all tasks to end")
