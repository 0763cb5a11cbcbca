"""The Sync subscribers: their topics, which of these are stale, and the versions of snapshots.

A stream has a set of stale topics instead of a queue: a slow reader skips intermediate versions, and a stream that
reads nothing costs one set.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass

from mesh.controller.desired.desired_state import Desired
from mesh.controller.report.snapshot_changes import SnapshotChanges
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
        self._sent_versions: dict[DeploymentKey, int] = {}
        """Versions of the snapshots that were sent last."""
        self._stale: set[Topic] = set()
        self._wake = asyncio.Event()
        self._current = asyncio.Event()
        self._current.set()

    @property
    def is_gateway(self) -> bool:
        return self.hello.kind == control_pb2.PROCESS_KIND_GATEWAY

    def add(self, topic: Topic) -> None:
        """Subscribe to the topic; a new one is stale."""
        if topic not in self.topics:
            self.topics.add(topic)
            self.mark(topic)

    def remove(self, topic: Topic) -> None:
        """Unsubscribe from the topic."""
        self.topics.discard(topic)
        self._stale.discard(topic)
        if isinstance(topic, DeploymentKey):
            self._sent_versions.pop(topic, None)

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

    def news_of(self, key: DeploymentKey, changes: SnapshotChanges) -> list[control_pb2.DeploymentSnapshot]:
        """What it is to be sent of a snapshot, in order."""
        before = self._sent_versions.get(key, 0) if self.hello.reads_changes else 0
        self._sent_versions[key] = changes.newest.version
        return changes.since(before)

    @property
    def is_flushed(self) -> bool:
        return self._current.is_set()

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
        self._snapshots: dict[DeploymentKey, SnapshotChanges] = {}
        self._routes = control_pb2.RouteTable(version=first_version)
        self._subscribers: dict[Subscriber, None] = {}
        self._of_topic: dict[Topic, dict[Subscriber, None]] = defaultdict(dict)
        self._on_node: dict[str, dict[Subscriber, None]] = defaultdict(dict)
        self._flush: tuple[int, asyncio.Task[None]] | None = None
        """The latest flush: the version that it waits for, and its task."""
        self._return_by_s = -math.inf
        """Until when, by the event loop, processes of an earlier controller may come back."""
        self._opened = asyncio.Event()
        """Set, and replaced, when a stream is opened."""
        self.own_process: control_pb2.ProcessHello | None = None
        """The controller's own process, which the gateway of its node scrapes too. Set before the first stream."""

    @property
    def subscribers(self) -> Collection[Subscriber]:
        return self._subscribers.keys()

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
        self._subscribers[subscriber] = None
        self._on_node[hello.node_id][subscriber] = None
        if subscriber.is_gateway:
            self._add(subscriber, _ROUTES)
            self._add(subscriber, _PEERS)
        self._mark_peers(hello.node_id)
        self._opened.set()
        self._opened = asyncio.Event()
        return subscriber

    def close(self, subscriber: Subscriber) -> None:
        for topic in tuple(subscriber.topics):
            self._remove(subscriber, topic)
        self._subscribers.pop(subscriber, None)
        self._on_node[subscriber.hello.node_id].pop(subscriber, None)
        if not self._on_node[subscriber.hello.node_id]:
            del self._on_node[subscriber.hello.node_id]
        subscriber.close()
        self._mark_peers(subscriber.hello.node_id)

    def subscribe(self, subscriber: Subscriber, keys: Iterable[DeploymentKey]) -> None:
        for key in keys:
            if key not in self._snapshots:
                self._put_snapshot(key, missing_snapshot(key, self._desired))
            self._add(subscriber, key)

    def unsubscribe(self, subscriber: Subscriber, keys: Iterable[DeploymentKey]) -> None:
        for key in keys:
            self._remove(subscriber, key)
        self._forget_missing({key for key, each in self._snapshots.items() if not each.newest.is_missing})

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
                        update.snapshots.extend(subscriber.news_of(key, self._snapshots[key]))
        return update

    def expect_returns(self, within_s: float) -> None:
        """Processes that had streams to an earlier controller come back within this time: flushes wait for them."""
        self._return_by_s = asyncio.get_running_loop().time() + within_s

    async def flush(self) -> None:
        """Wait until everything was written to every stream; but only briefly for those that do not read."""
        if self._flush is None or self._flush[0] != self._version or self._flush[1].done():
            self._flush = self._version, asyncio.create_task(self._written(), name="flush of the snapshots")
        # All that drain in one turn wait together.
        await asyncio.shield(self._flush[1])

    async def gateways_know(self, count: int) -> None:
        """Wait until `count` gateways have a stream, and what is published was written to them; for some seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(settings().controller.return_timeout_s):
                while len(gateways := [each for each in self._subscribers if each.is_gateway]) < count:
                    await self._opened.wait()
                for each in gateways:
                    await each.wait_flushed()

    async def _written(self) -> None:
        await asyncio.sleep(max(0.0, self._return_by_s - asyncio.get_running_loop().time()))
        behind = [subscriber for subscriber in self._subscribers if not subscriber.is_flushed]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(settings().controller.flush_timeout_s):
                for subscriber in behind:
                    await subscriber.wait_flushed()

    def _add_descriptors(self, routes: control_pb2.RouteTable, subscriber: Subscriber) -> None:
        """The descriptors that the table names and the process does not have."""
        sets = self._desired.descriptor_sets
        named = frozenset(route.descriptors_digest for route in routes.routes) & sets.keys()
        for digest in sorted(named - subscriber.descriptor_sets):
            routes.descriptor_sets.add(digest=digest, serialised=sets[digest])
        subscriber.descriptor_sets = named

    def _put_snapshot(self, key: DeploymentKey, snapshot: control_pb2.DeploymentSnapshot) -> None:
        changes = self._snapshots.get(key)
        if changes and snapshot is changes.newest:
            return
        snapshot.version = changes.newest.version if changes else 0
        if changes and snapshot == changes.newest:
            return
        snapshot.version = self._next_version()
        self._snapshots.setdefault(key, SnapshotChanges()).take(snapshot)
        self._mark(key)

    def _forget_missing(self, existing: Set[DeploymentKey]) -> None:
        """Drop the snapshots of missing deployments that have no subscriber."""
        for key in self._snapshots.keys() - existing - self._of_topic.keys():
            del self._snapshots[key]

    def _add(self, subscriber: Subscriber, topic: Topic) -> None:
        self._of_topic[topic][subscriber] = None
        subscriber.add(topic)

    def _remove(self, subscriber: Subscriber, topic: Topic) -> None:
        if topic in subscriber.topics:
            subscriber.remove(topic)
            self._of_topic[topic].pop(subscriber, None)
            if not self._of_topic[topic]:
                del self._of_topic[topic]

    def _next_version(self) -> int:
        self._version += 1
        return self._version

    def _mark(self, topic: Topic) -> None:
        for subscriber in self._of_topic.get(topic, ()):
            subscriber.mark(topic)

    def _mark_peers(self, node_id: str) -> None:
        for subscriber in self._on_node.get(node_id, ()):
            subscriber.mark(_PEERS)

    def _peers_of(self, gateway: Subscriber) -> control_pb2.Peers:
        processes = [subscriber.hello for subscriber in self._on_node.get(gateway.hello.node_id, ())]
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
