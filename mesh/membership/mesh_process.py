"""This process as a member of the mesh: its routers, its Sync stream to the controller, its Process service.

Theory of operation. The Sync stream (`mesh.membership.sync_stream`) receives snapshots of the deployments that
this process calls, and reports its load. While the stream is down, routers work with the snapshots they have. A process
that only calls joins the mesh on its first call; replicas and gateways join when they start.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import logging
import os
import sys
import threading
from collections.abc import Callable, Set
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import grpc.aio

from mesh.cluster import ray_core
from mesh.context import get_replica_context, in_replica
from mesh.exceptions import MeshException
from mesh.membership.sync_stream import SyncStream
from mesh.routing.link_pool import CallerIdentity, CallingReplica
from mesh.routing.load_reports import Reading
from mesh.routing.router import Router
from mesh.routing.snapshot import DeploymentKey, Snapshot, read_snapshot
from mesh.settings import settings
from mesh.tracing.trace_export import begin_tracing, span_maker
from mesh.tracing.traced_router import EntryRouter, TracedRouter
from mesh.v1 import control_pb2
from mesh.wire.blocking_work import Work, run_blocking
from mesh.wire.endpoints import start_server
from mesh.wire.io_thread import io_thread
from mesh.wire.link_tls import link_tls
from mesh.wire.mesh_token import TokenGuard, renew_token
from mesh.wire.process_service import new_process_id, process_service

logger = logging.getLogger("mesh")

CALLER = control_pb2.PROCESS_KIND_CALLER
REPLICA = control_pb2.PROCESS_KIND_REPLICA
GATEWAY = control_pb2.PROCESS_KIND_GATEWAY


RAY_LEFT = (
    "Ray was shut down in this process, which has left the mesh, before the call was sent. If the mesh has ended with "
    "its Ray, deploy the application again with mesh.run(); if not, connect with ray.init(). Then make the call again."
)


@dataclass(frozen=True, slots=True)
class _Listeners:
    """What follows the updates of the controller."""

    routes: list[Callable[[control_pb2.RouteTable], None]] = field(default_factory=list)
    replicas: list[Callable[[], None]] = field(default_factory=list)


class MeshProcess:
    """The membership, one per process, made by `join`. On the I/O loop, except for `use` and `leave`."""

    def __init__(self, kind: control_pb2.ProcessKind) -> None:
        self.process_id = new_process_id(ray_core.node_id())
        self.kind = kind
        self.identity = CallerIdentity(
            self.process_id, ray_core.node_id(), ray_core.node_zone(), renew_token(), _calling_replica()
        )
        self.routes: control_pb2.RouteTable | None = None
        """Gateways only: the latest route table of the controller."""
        self.peers: tuple[control_pb2.Peer, ...] = ()
        """Gateways only: the other processes of this node."""
        self._routers: dict[DeploymentKey, Router] = {}
        self._snapshots: dict[DeploymentKey, Snapshot] = {}
        """The latest of each subscribed deployment, for new routers: the controller sends one only on changes."""
        self.own_reading: Callable[[], Reading | None] = lambda: None
        """Replicas only: the load of this replica."""
        self._lock = threading.Lock()
        self._sync = SyncStream(self)
        self._server: grpc.aio.Server | None = None
        self._listeners = _Listeners()

    def __repr__(self) -> str:
        kind = control_pb2.ProcessKind.Name(self.kind)
        return f"<MeshProcess {self.process_id}, {kind}, routers: {len(self._routers)}, {self._sync!r}>"

    def use(self, key: DeploymentKey, user: object) -> Router:
        """The router of a deployment, made on first use; kept until all its users have left it. From any thread."""
        with self._lock:
            router = self._routers.get(key) or self._make(key)
            router.users.add(user)
        return router

    def leave(self, router: Router, user: object) -> Future[None]:
        """End the use of a router; the last user closes it. The future ends when it is closed. From any thread."""
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
        """Closes routers of deleted deployments that have no handle and no call left. On the I/O loop.

        The next call to such a deployment makes a new router, which subscribes again: the deployment may be back.
        """
        for router in self.routers():
            if router.can_be_dropped and not router.users:
                self._drop(router)

    def keep_snapshots(self, keys: Set[DeploymentKey]) -> None:
        """Drop the snapshots of other deployments, which the stream no longer updates."""
        for key in self._snapshots.keys() - keys:
            del self._snapshots[key]

    @property
    def has_controller(self) -> bool:
        """Whether the controller answers on the Sync stream."""
        return self._sync.has_answered

    def routers(self) -> list[Router]:
        return list(self._routers.values())

    def readings(self) -> list[Reading]:
        """The load of this process, to be reported to the controller."""
        own = self.own_reading()
        return [*(router.reading() for router in self.routers()), *([own] if own is not None else ())]

    def report_health(self, health: control_pb2.ReplicaHealth) -> None:
        """Report how the replica in this process has found itself. On the I/O loop."""
        self._sync.report_health(health)

    def on_routes(self, listener: Callable[[control_pb2.RouteTable], None]) -> None:
        """Call `listener` with every route table, immediately if there is one already."""
        self._listeners.routes.append(listener)
        if self.routes is not None:
            listener(self.routes)

    def on_replicas(self, listener: Callable[[], None]) -> None:
        """Call `listener` when a router may have other replicas than before."""
        self._listeners.replicas.append(listener)

    async def start(self) -> None:
        """Open the Process service and the Sync stream."""
        service = TokenGuard(process_service(self.process_id))
        self._server, port = await start_server([service], settings().process.server_host or ray_core.node_ip())
        self._sync.start(f"{ray_core.node_ip()}:{port}")

    def apply(self, update: control_pb2.Update) -> None:
        """Pass an update of the controller to routers and route listeners."""
        for message in update.snapshots:
            key = DeploymentKey(message.deployment.app, message.deployment.name)
            snapshot = read_snapshot(message, self._snapshots.get(key))
            if snapshot is None:  # it has unsubscribed meanwhile, and a whole one follows if it has subscribed again
                continue
            self._snapshots[snapshot.deployment] = snapshot
            router = self._routers.get(snapshot.deployment)
            if router is not None:
                router.update(snapshot)
        if update.snapshots:
            self._announce_replicas()
        if update.HasField("peers"):
            self.peers = tuple(update.peers.peers)
        if update.HasField("routes"):
            self.routes = _with_descriptors(update.routes, self.routes)
            for listener in self._listeners.routes:
                listener(self.routes)

    async def renew_token(self) -> None:
        """Use the new token of a mesh that was shut down and started again."""
        token = await run_blocking(Work.LOOK_UP, renew_token)
        self._snapshots.clear()
        self.identity = replace(self.identity, token=token)
        for router in self.routers():
            router.identify(self.identity)

    def leave_ray(self) -> None:
        """Ray was shut down in this process: fail the calls that wait, and let the next one join the mesh of a new Ray.

        Not while a replica is connected, because that of a cluster which goes on still answers. Nor do replicas and
        gateways leave: they end with their Ray.
        """
        if self.kind != CALLER or any(router.link_count or router.ongoing for router in self.routers()):
            return
        logger.info("leaving the mesh: Ray was shut down in this process")
        _forget(self)
        for router in self.routers():
            router.listing.why_closed = RAY_LEFT
        io_thread().spawn(self.stop(), "leave the mesh")

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
            io_thread().run(self.stop(), settings().process.membership_timeout_s)

    def _make(self, key: DeploymentKey) -> Router:
        router = self._routers[key] = self._new_router(key)
        io_thread().post(self._introduce, router)
        return router

    def _new_router(self, key: DeploymentKey) -> Router:
        spans = span_maker()
        if spans is None:
            return Router(key, self.identity, self._sync.report_urgently)
        traced = EntryRouter if self.kind == GATEWAY else TracedRouter
        return traced(key, self.identity, self._sync.report_urgently, spans)

    def _introduce(self, router: Router) -> None:
        """Give a new router the latest snapshot, and subscribe to its deployment."""
        if self._sync.has_ended:  # a thread has taken the membership just before it ended
            io_thread().spawn(router.close(), f"close router of {router.key}")
            return
        router.identify(self.identity)
        snapshot = self._snapshots.get(router.key)
        if snapshot is not None:
            router.update(snapshot)
            self._announce_replicas()
        self._sync.wake()

    def _announce_replicas(self) -> None:
        for listener in self._listeners.replicas:
            listener()

    def _drop(self, router: Router) -> None:
        with self._lock:
            # Another thread may have added a user, or removed the last one and closed the router.
            if router.users or self._routers.get(router.key) is not router:
                return
            del self._routers[router.key]
        logger.info("closing the router of %s: the deployment was deleted and has no calls here", router.key)
        io_thread().spawn(router.close(), f"close router of {router.key}")


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
    """In a forked process: forget the membership, which is the parent's."""
    global _instance, _lock
    _lock = threading.Lock()
    if _instance is not None:
        _forget(_instance)


os.register_at_fork(after_in_child=_leave_to_parent)


def _join(kind: control_pb2.ProcessKind) -> MeshProcess:
    io_thread().require()
    if kind != CALLER:
        # With Python's default of 5 ms, user code that computes would delay every batch in and out. Processes that only
        # call belong to the user, so their interpreter keeps its settings.
        sys.setswitchinterval(settings().process.gil_switch_interval_s)
        gc.set_threshold(settings().process.gc_threshold, 20, 50)
    if not ray_core.is_connected():
        raise MeshException("This process is not connected to a Ray cluster: call mesh.start() or ray.init() first.")
    try:
        link_tls()
        process = MeshProcess(kind)
        begin_tracing(_trace_resource(process))
    except (LookupError, ValueError) as error:
        raise MeshException(str(error)) from error
    future = io_thread().submit(process.start())
    # On the I/O thread itself (user code that is not isolated) waiting would block the start.
    if threading.current_thread() is not io_thread().thread:
        try:
            future.result(settings().process.membership_timeout_s)
        except TimeoutError as error:
            future.cancel()
            raise MeshException(
                f"This process did not get its port within {settings().process.membership_timeout_s:g} s. Try again."
            ) from error
    atexit.register(process.close)
    return process


def _calling_replica() -> CallingReplica | None:
    """Which replica this process is, if it is one."""
    if not in_replica():
        return None
    replica = get_replica_context()
    return CallingReplica(replica.app_name, replica.deployment, replica.code_version)


def _trace_resource(process: MeshProcess) -> dict[str, str]:
    """What spans say of this process. A process that only calls belongs to the user, who names it."""
    if in_replica():
        replica = get_replica_context()
        names = {"service.name": replica.deployment, "service.instance.id": replica.replica_tag}
        return {**names, "service.namespace": replica.app_name} if replica.app_name else names
    names = {"service.instance.id": process.process_id}
    return {"service.name": "mesh-gateway", **names} if process.kind == GATEWAY else names


def _with_descriptors(routes: control_pb2.RouteTable, before: control_pb2.RouteTable | None) -> control_pb2.RouteTable:
    """The table with all descriptors that it names: the controller sends each set once on a stream."""
    known = {each.digest: each for table in (before, routes) if table is not None for each in table.descriptor_sets}
    named = {route.descriptors_digest for route in routes.routes}
    complete = [known[digest] for digest in sorted(named & known.keys())]
    del routes.descriptor_sets[:]
    routes.descriptor_sets.extend(complete)
    return routes


def _forget(process: MeshProcess) -> None:
    global _instance
    atexit.unregister(process.close)
    if _instance is process:
        _instance = None
