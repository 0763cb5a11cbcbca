"""The Sync subscribers: their topics, which of these are stale, and the versions of snapshots.

A stream has a set of stale topics instead of a queue: a slow reader skips intermediate versions, and a stream that
reads nothing costs one set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from mesh.controller.desired.desired_state import Desired
from mesh.controller.report.snapshots import missing_snapshot
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings
from mesh.v1 import control_pb2


@dataclass(frozen=True, slots=True)
class RoutesTopic:
    pass


@dataclass(frozen=True, slots=True)
class PeersTopic:
    pass


Topic = DeploymentKey | RoutesTopic | PeersTopic

_ROUTES = RoutesTopic()
_PEERS = PeersTopic()


class Subscriber:
    """One Sync stream."""

    def __init__(self, hello: control_pb2.ProcessHello) -> None:
        self.hello = hello
        self.topics: set[Topic] = set()
        self.descriptor_sets: frozenset[str] = frozenset()
        """Digests of those that the process has: they were sent on this stream and are still in use."""
        self._stale: set[Topic] = set()
        self._wake = asyncio.Event()
        self._current = asyncio.Event()

    @property
    def is_gateway(self) -> bool:
        return self.hello.kind == control_pb2.PROCESS_KIND_GATEWAY

    def add(self, topics: Iterable[Topic]) -> None:
        """Subscribe to the topics; new ones are stale."""
        for topic in topics:
            if topic not in self.topics:
                self.topics.add(topic)
                self.mark(topic)

    def remove(self, topics: Iterable[Topic]) -> None:
        """Unsubscribe from the topics."""
        gone = frozenset(topics)
        self.topics -= gone
        self._stale -= gone

    def mark(self, topic: Topic) -> None:
        """A topic has changed. Does nothing on a stream that has not subscribed to it."""
        if topic in self.topics:
            self._stale.add(topic)
            self._current.clear()
            self._wake.set()

    async def wait_stale(self) -> set[Topic]:
        """Wait for stale topics and return them. Calling it again means that the previous ones were written."""
        if not self._stale:
            self._current.set()
        await self._wake.wait()
        self._wake.clear()
        stale, self._stale = self._stale, set()
        return stale

    async def wait_flushed(self) -> None:
        """Wait until everything was written to the stream, or it is closed."""
        await self._current.wait()

    def close(self) -> None:
        self.topics.clear()
        self._stale.clear()
        self._current.set()


class Publisher:
    """Keeps the newest snapshots, routes and peers, and marks on each stream what changed. On one event loop."""

    def __init__(self, first_version: int) -> None:
        """`first_version` must exceed every version of earlier controllers of this mesh, so that versions only grow."""
        self._version = first_version
        self._desired = Desired()
        self._snapshots: dict[DeploymentKey, control_pb2.DeploymentSnapshot] = {}
        self._routes = control_pb2.RouteTable(version=first_version)
        self._subscribers: set[Subscriber] = set()
        self.own_process: control_pb2.ProcessHello | None = None
        """The controller's: a peer for the gateway of its node. Set before the first stream."""

    def __repr__(self) -> str:
        return f"<Publisher version={self._version} snapshots={len(self._snapshots)} streams={len(self._subscribers)}>"

    def publish(
        self,
        desired: Desired,
        snapshots: Mapping[DeploymentKey, control_pb2.DeploymentSnapshot],
        routes: control_pb2.RouteTable,
    ) -> None:
        """Take over the newest state and mark what differs. Versions in the arguments are ignored."""
        self._desired = desired
        for key, snapshot in snapshots.items():
            self._put_snapshot(key, snapshot)
        # The snapshot of a missing deployment names those that exist, so each deploy or delete changes it.
        for key in self._snapshots.keys() - snapshots.keys():
            self._put_snapshot(key, missing_snapshot(key, desired))
        routes.version = self._routes.version
        # During a shutdown gateways refuse calls themselves: clients must see that the mesh is shutting down, not
        # that an application does not exist.
        if routes != self._routes and not desired.is_shutting_down:
            routes.version = self._next_version()
            self._routes = routes
            self._mark(_ROUTES)
        self._forget_missing(snapshots.keys())

    def open(self, hello: control_pb2.ProcessHello) -> Subscriber:
        """Add the stream of a process."""
        subscriber = Subscriber(hello)
        self._subscribers.add(subscriber)
        if subscriber.is_gateway:
            subscriber.add((_ROUTES, _PEERS))
        self._mark_peers(hello.node_id)
        return subscriber

    def close(self, subscriber: Subscriber) -> None:
        self._subscribers.discard(subscriber)
        subscriber.close()
        self._mark_peers(subscriber.hello.node_id)

    def subscribe(self, subscriber: Subscriber, keys: Iterable[DeploymentKey]) -> None:
        for key in keys:
            if key not in self._snapshots:
                self._put_snapshot(key, missing_snapshot(key, self._desired))
            subscriber.add((key,))

    def unsubscribe(self, subscriber: Subscriber, keys: Iterable[DeploymentKey]) -> None:
        subscriber.remove(keys)
        self._forget_missing({key for key, snapshot in self._snapshots.items() if not snapshot.is_missing})

    async def next_update(self, subscriber: Subscriber) -> control_pb2.Update:
        """Wait for changes and return them. Call it again when the update was written."""
        update = control_pb2.Update()
        for topic in await subscriber.wait_stale():
            match topic:
                case RoutesTopic():
                    update.routes.CopyFrom(self._routes)
                    self._add_descriptors(update.routes, subscriber)
                case PeersTopic():
                    update.peers.CopyFrom(self._peers_of(subscriber))
                case key:
                    if key in self._snapshots:
                        update.snapshots.append(self._snapshots[key])
        return update

    async def flush(self) -> None:
        """Wait until everything was written to every stream; but only briefly for those that do not read."""
        waits = [asyncio.ensure_future(subscriber.wait_flushed()) for subscriber in self._subscribers]
        if waits:
            _, late = await asyncio.wait(waits, timeout=settings().controller.flush_timeout_s)
            for wait in late:
                wait.cancel()

    def _add_descriptors(self, routes: control_pb2.RouteTable, subscriber: Subscriber) -> None:
        """The descriptors that the table names and the process does not have."""
        sets = self._desired.descriptor_sets
        named = frozenset(route.descriptors_digest for route in routes.routes) & sets.keys()
        for digest in sorted(named - subscriber.descriptor_sets):
            routes.descriptor_sets.add(digest=digest, serialised=sets[digest])
        subscriber.descriptor_sets = named

    def _put_snapshot(self, key: DeploymentKey, snapshot: control_pb2.DeploymentSnapshot) -> None:
        known = self._snapshots.get(key)
        snapshot.version = known.version if known else 0
        if snapshot == known:
            return
        snapshot.version = self._next_version()
        self._snapshots[key] = snapshot
        self._mark(key)

    def _forget_missing(self, existing: Set[DeploymentKey]) -> None:
        """Drop the snapshots of missing deployments that have no subscriber."""
        missing = self._snapshots.keys() - existing
        if missing:
            awaited = set().union(*(subscriber.topics for subscriber in self._subscribers))
            for key in missing - awaited:
                del self._snapshots[key]

    def _next_version(self) -> int:
        self._version += 1
        return self._version

    def _mark(self, topic: Topic) -> None:
        for subscriber in self._subscribers:
            subscriber.mark(topic)

    def _mark_peers(self, node_id: str) -> None:
        for subscriber in self._subscribers:
            if subscriber.hello.node_id == node_id:
                subscriber.mark(_PEERS)

    def _peers_of(self, gateway: Subscriber) -> control_pb2.Peers:
        processes = [subscriber.hello for subscriber in self._subscribers]
        if self.own_process is not None:
            processes.append(self.own_process)
        return control_pb2.Peers(
            peers=[
                control_pb2.Peer(process_id=hello.process_id, kind=hello.kind, address=hello.address)
                for hello in sorted(processes, key=lambda hello: hello.process_id)
                if hello.address
                and hello.node_id == gateway.hello.node_id
                and hello.process_id != gateway.hello.process_id
            ]
        )
