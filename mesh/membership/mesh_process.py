"""Owns this process's membership in the mesh: its routers, its Sync stream to the controller, its Process service.

Theory of operation. The Sync stream (`mesh.membership.sync_stream`) brings whole snapshots of the deployments that
this process calls, and takes up how busy its callers are. While it is down routers go on with what they know. A process
that only calls joins on its first call; replicas and gateways join when they start.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import os
import sys
import threading
import uuid
from collections.abc import Callable, Set
from concurrent.futures import Future
from dataclasses import replace

import grpc.aio

from mesh.cluster import ray_core
from mesh.exceptions import MeshException
from mesh.membership.sync_stream import SyncStream
from mesh.routing.link_pool import CallerIdentity
from mesh.routing.load_reports import Reading
from mesh.routing.router import Router
from mesh.routing.snapshot import DeploymentKey, Snapshot, read_snapshot
from mesh.settings import settings
from mesh.v1 import control_pb2, telemetry_pb2, telemetry_pb2_grpc
from mesh.wire import telemetry
from mesh.wire.bulk_fetch import run_bulk
from mesh.wire.endpoints import generic_handlers, start_server
from mesh.wire.io_thread import io_thread
from mesh.wire.mesh_token import TokenGuard, forget_token, mesh_token

_START_TIMEOUT_S = 5.0
_CLOSE_TIMEOUT_S = 5.0

CALLER = control_pb2.PROCESS_KIND_CALLER
REPLICA = control_pb2.PROCESS_KIND_REPLICA
GATEWAY = control_pb2.PROCESS_KIND_GATEWAY


class MeshProcess:
    """One per process. Made with `join`; everything but `router` belongs to the I/O loop."""

    def __init__(self, kind: control_pb2.ProcessKind) -> None:
        self.process_id = f"{ray_core.node_id()[:8]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.kind = kind
        self.identity = CallerIdentity(
            self.process_id, ray_core.node_id(), ray_core.node_zone(), mesh_token(), gathers=kind == GATEWAY
        )
        self.routes: control_pb2.RouteTable | None = None
        """Gateways: what the controller last published."""
        self.peers: tuple[control_pb2.Peer, ...] = ()
        """Gateways: the other processes of this node."""
        self._routers: dict[DeploymentKey, Router] = {}
        self._snapshots: dict[DeploymentKey, Snapshot] = {}
        """The newest of every deployment that the Sync stream subscribes to: the controller tells changes only."""
        self.own_reading: Callable[[], Reading | None] = lambda: None
        """Replicas: how busy this one is."""
        self._lock = threading.Lock()
        self._sync = SyncStream(self)
        self._server: grpc.aio.Server | None = None
        self._route_listeners: list[Callable[[control_pb2.RouteTable], None]] = []

    def router(self, key: DeploymentKey) -> Router:
        """The router of a deployment, made on first use. From any thread."""
        router = self._routers.get(key)
        if router is None:
            with self._lock:
                router = self._routers.get(key) or self._make(key)
        return router

    def use(self, key: DeploymentKey, user: object) -> Router:
        """The router of a deployment, which stays until all its users have left it. From any thread."""
        with self._lock:
            router = self._routers.get(key) or self._make(key)
            router.users.add(user)
        return router

    def leave(self, router: Router, user: object) -> Future[None]:
        """The user needs the router no more; the last one to say so closes it. From any thread."""
        with self._lock:
            router.users.discard(user)
            if router.users:
                done: Future[None] = Future()
                done.set_result(None)
                return done
            if self._routers.get(router.key) is router:
                del self._routers[router.key]
        return io_thread().submit(router.close())

    def drop_deleted_routers(self) -> None:
        """Drop the routers of deployments that were deleted, once nobody here has to do with them. On the I/O loop.

        Who calls such a deployment again, because it may have come back, gets a new router, which asks anew.
        """
        for router in self.routers():
            if router.can_be_dropped and not router.users:
                self._drop(router)

    def _drop(self, router: Router) -> None:
        with self._lock:
            # Somebody may just have come, or have left and closed it.
            if router.users or self._routers.get(router.key) is not router:
                return
            del self._routers[router.key]
        io_thread().spawn(router.close(), f"close router of {router.key}")

    def keep_snapshots(self, keys: Set[DeploymentKey]) -> None:
        """Of other deployments nothing more will be told."""
        for key in self._snapshots.keys() - keys:
            del self._snapshots[key]

    def _make(self, key: DeploymentKey) -> Router:
        router = self._routers[key] = Router(key, self.identity)
        io_thread().post(self._introduce, router)
        return router

    def routers(self) -> list[Router]:
        return list(self._routers.values())

    def readings(self) -> list[Reading]:
        """How busy this process is, for the controller."""
        own = self.own_reading()
        return [*(router.reading() for router in self.routers()), *([own] if own is not None else ())]

    def on_routes(self, listener: Callable[[control_pb2.RouteTable], None]) -> None:
        """Call `listener` with every route table, at once if there is one already."""
        self._route_listeners.append(listener)
        if self.routes is not None:
            listener(self.routes)

    async def start(self) -> None:
        """Open the Process service and the Sync stream."""
        handlers = generic_handlers(telemetry_pb2_grpc.add_ProcessServicer_to_server, _ProcessServicer(self))
        self._server, port = await start_server([TokenGuard(handlers)], settings().process.server_host)
        self._sync.start(f"{ray_core.node_ip()}:{port}")

    def apply(self, update: control_pb2.Update) -> None:
        """Hand an update of the controller to whom it concerns."""
        for message in update.snapshots:
            snapshot = read_snapshot(message)
            self._snapshots[snapshot.deployment] = snapshot
            router = self._routers.get(snapshot.deployment)
            if router is not None:
                router.update(snapshot)
        if update.HasField("peers"):
            self.peers = tuple(update.peers.peers)
        if update.HasField("routes"):
            self.routes = update.routes
            for listener in self._route_listeners:
                listener(update.routes)

    async def renew_token(self) -> None:
        """The mesh was shut down and started again: use its new token from now on."""
        forget_token()
        token = await run_bulk(mesh_token)
        self._snapshots.clear()
        self.identity = replace(self.identity, token=token)
        for router in self.routers():
            router.identify(self.identity)

    async def stop(self) -> None:
        """Leave the mesh: close the stream, all links and the server."""
        await self._sync.stop()
        await asyncio.gather(*(router.close() for router in self._routers.values()))
        if self._server is not None:
            await self._server.stop(grace=0)

    def close(self) -> None:
        """Leave the mesh and wait for it, from any other thread. Idempotent."""
        _forget(self)
        with contextlib.suppress(TimeoutError):
            io_thread().run(self.stop(), _CLOSE_TIMEOUT_S)

    def _introduce(self, router: Router) -> None:
        """Tell a new router what is known, and the controller that it is there."""
        router.identify(self.identity)
        router.on_no_replica = self._sync.report_urgently
        snapshot = self._snapshots.get(router.key)
        if snapshot is not None:
            router.update(snapshot)
        self._sync.wake()


class _ProcessServicer(telemetry_pb2_grpc.ProcessServicer):
    def __init__(self, process: MeshProcess) -> None:
        self._process = process

    async def Metrics(
        self,
        request: telemetry_pb2.MetricsRequest,
        context: grpc.aio.ServicerContext,  # type: ignore[type-arg]
    ) -> telemetry_pb2.MetricsReply:
        del request, context
        return telemetry.to_reply(self._process.process_id)


_lock = threading.Lock()
_instance: MeshProcess | None = None


def join(kind: control_pb2.ProcessKind = CALLER) -> MeshProcess:
    """Make this process a member of the mesh, or return its membership.

    Blocks for some milliseconds the first time. Raises MeshException where no mesh is running.
    """
    global _instance
    if _instance is not None:
        return _instance
    with _lock:
        if _instance is None:
            _instance = _join(kind)
        return _instance


def mesh_process() -> MeshProcess:
    """This process's membership; joins as a caller if need be."""
    return _instance or join()


def joined_process() -> MeshProcess | None:
    """This process's membership if it has one."""
    return _instance


def _leave_to_parent() -> None:
    """In a forked process: the membership is the parent's."""
    global _instance, _lock
    _lock = threading.Lock()
    if _instance is not None:
        _forget(_instance)


os.register_at_fork(after_in_child=_leave_to_parent)


def _join(kind: control_pb2.ProcessKind) -> MeshProcess:
    io_thread().require()
    if kind != CALLER:
        # With Python's 5 ms, user code that computes would hold up every batch on its way in or out. Processes that
        # only call are the user's own: their interpreter is left alone.
        sys.setswitchinterval(settings().process.gil_switch_interval_s)
        gc.set_threshold(settings().process.gc_threshold, 20, 50)
    if not ray_core.is_connected():
        raise MeshException("This process is not connected to a Ray cluster: call mesh.start() or ray.init() first.")
    try:
        process = MeshProcess(kind)
    except LookupError as error:
        raise MeshException(str(error)) from error
    future = io_thread().submit(process.start())
    # On the I/O thread itself (user code that is not isolated) the start goes on by itself.
    if threading.current_thread() is not io_thread().thread:
        try:
            future.result(_START_TIMEOUT_S)
        except TimeoutError as error:
            future.cancel()
            raise MeshException(
                f"This process did not get its port within {_START_TIMEOUT_S:g} s. Try again."
            ) from error
    atexit.register(process.close)
    return process


def _forget(process: MeshProcess) -> None:
    global _instance
    atexit.unregister(process.close)
    if _instance is process:
        _instance = None
