"""Both ends of a link, without sockets: whatever crosses on the way, each call runs once and nothing is left of it."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import pytest

from mesh.cluster.ray_objects import StoredObject
from mesh.exceptions import CancelReason
from mesh.link.admission import Admission
from mesh.link.callee_link import CalleeLink, IncomingCall
from mesh.link.caller_link import CallerLink
from mesh.link.outgoing_call import DONE, QUEUED, SENT, CallRequest, OutgoingCall
from mesh.link.replica_facts import ReplicaFacts
from mesh.link.writer import LinkWriter
from mesh.settings import settings
from mesh.wire.outcome import Outcome, Trailers, cancelled
from mesh.wire.payload import PICKLE_BUFFERS, Payload, raw
from mesh.wire.request_context import RequestContext

PART_BYTES = 300
LARGE = 1_000
"""Bytes of a message that crosses in several parts."""
_SETTINGS = replace(settings(), payload=replace(settings().payload, part_bytes=PART_BYTES))
UNLIMITED = 10**9


class Direction:
    """One direction of the stream: messages that an end has written wait here until they are read."""

    def __init__(self) -> None:
        self.room = 1
        self.connection = SimpleNamespace(outbox=self)
        self.pending: str | None = None
        self.has_ended = False
        self.on_way: deque[bytes] = deque()
        self.receive: Any = None
        self.writer = LinkWriter(cast(Any, self))

    def send_message(self, stream: object, data: bytes) -> None:
        self.room -= 1
        self.pending = None if self.room > 0 else "its window is closed"
        self.on_way.append(bytes(data))

    def send_pieces(self, stream: object, pieces: list[bytes | memoryview]) -> None:
        self.send_message(stream, b"".join(pieces))

    def write(self, room: int) -> None:
        self.room = room
        self.pending = None if room else self.pending
        self.writer.write()

    def read(self, messages: int) -> None:
        for _ in range(min(messages, len(self.on_way))):
            self.receive(self.on_way.popleft())


class World:
    """The router of the caller, the service of the replica, and what happened to each call."""

    def __init__(self, places: int) -> None:
        self.there, self.back = Direction(), Direction()
        self.admission = Admission(places, lambda delay_s, function: None)
        self.caller = CallerLink("r1", self)
        self.callee = CalleeLink(self.admission, self, self.back.writer, lambda *status: None)
        self.there.receive, self.back.receive = self.callee.receive, self.caller.receive
        self.calls: list[OutgoingCall] = []
        self.running: dict[int, IncomingCall] = {}
        self.started: list[int] = []
        self.items: dict[int, list[bytes]] = defaultdict(list)
        """By call: what its method has got of the request."""
        self.sent_items: dict[int, list[bytes]] = defaultdict(list)
        self.responses: dict[int, list[bytes]] = defaultdict(list)
        self.stored = 0
        self.callee.start(ReplicaFacts())
        self.caller.open(self.there.writer)
        self.settle()

    # ---- Steps -------------------------------------------------------------------------------------------------------

    def open(self, size: int, *, streams: bool) -> None:
        if self.caller.is_usable:
            request = CallRequest("m", raw(b"x" * size), RequestContext("id"), None, streams, True)
            call = OutgoingCall(request, Sink())
            self.calls.append(call)
            self.caller.send(call)

    def again(self, call: OutgoingCall) -> None:
        """Send a call once more that was rejected."""
        if call.state is QUEUED and self.caller.is_usable:
            self.caller.send(call)

    def item(self, call: OutgoingCall, size: int) -> None:
        if call.request.streams_request and call.state is SENT and call.request_credit > 0:
            item = b"%d" % len(self.sent_items[call.call_id]) * size
            self.sent_items[call.call_id].append(item)
            call.send_item(raw(item))

    def cancel(self, call: OutgoingCall) -> None:
        if call.state is SENT:
            call.state = DONE
            self.caller.cancel(call, CancelReason.CLIENT)

    def respond(self, call: IncomingCall, size: int) -> None:
        response = b"%d" % len(self.responses[call.call_id]) * size
        self.responses[call.call_id].append(response)
        call.send_item(raw(response))

    def finish(self, call: IncomingCall, size: int, *, is_stored: bool) -> None:
        payload = raw(b"a" * size)
        if is_stored:
            self.stored += 1
            payload = Payload(PICKLE_BUFFERS, b"a" * size, (), StoredObject(b"%d" % self.stored, b"owner", b"status"))
        del self.running[call.call_id]
        self.callee.finish(call, Outcome(payload=payload))

    def drain(self) -> None:
        if not self.admission.is_closed:
            self.admission.close()
            self.callee.drain()

    def settle(self) -> None:
        """Let all that is on its way arrive."""
        for _ in range(20):
            for direction in (self.there, self.back):
                direction.write(UNLIMITED)
                direction.read(UNLIMITED)

    # ---- The service -------------------------------------------------------------------------------------------------

    def start(self, call: IncomingCall) -> Any:
        self.started.append(call.call_id)
        self.running[call.call_id] = call
        if call.request.streams_request:
            call.grant(10)
        return Running(self, call)

    # ---- The router --------------------------------------------------------------------------------------------------

    def on_ready(self, link: CallerLink) -> None: ...

    def on_load(self, link: CallerLink) -> None: ...

    def on_result(self, link: CallerLink, call: OutgoingCall, outcome: Outcome) -> None:
        assert call.state is not QUEUED
        if call.state is SENT:
            assert cast(Any, call.sink).items == self.responses[call.call_id], "all that came before"
        call.state = DONE

    def on_undeliverable(self, call: OutgoingCall) -> None:
        raise AssertionError

    def on_reject(self, link: CallerLink, call: OutgoingCall) -> None:
        if call.state is SENT:
            assert call.call_id not in self.started, "it has run here"
            call.state = QUEUED

    def on_broken(self, link: CallerLink, reason: str, unsent: list[OutgoingCall], sent: list[OutgoingCall]) -> None:
        assert not [call for call in unsent if call.call_id in self.started]
        for call in (*unsent, *sent):
            call.state = DONE


class Sink:
    """What a call gets."""

    def __init__(self) -> None:
        self.items: list[bytes] = []

    def on_item(self, payload: Payload) -> None:
        self.items.append(bytes(payload.data))

    def on_credit(self) -> None: ...

    def on_initial_metadata(self, entries: Trailers) -> None: ...

    def on_compression(self, encoding: str, *, skips_next: bool) -> None: ...

    def on_done(self, outcome: Outcome) -> None: ...


class Running:
    """A call that runs, which ends at once when it is cancelled."""

    def __init__(self, world: World, call: IncomingCall) -> None:
        self._world = world
        self._call = call

    def on_item(self, payload: Payload) -> None:
        items = self._world.items[self._call.call_id]
        items.append(bytes(payload.data))
        assert items == self._world.sent_items[self._call.call_id][: len(items)]

    def on_half_close(self) -> None: ...

    def on_credit(self, credits: int) -> None: ...

    def cancel(self, reason: CancelReason) -> None:
        del self._world.running[self._call.call_id]
        self._world.callee.finish(self._call, cancelled(reason))


@contextmanager
def fetched_at_once() -> Iterator[None]:
    """Stored results, without Ray."""

    def fetch(link: Any, call: OutgoingCall, outcome: Outcome, stored: StoredObject) -> None:
        link._fetching -= 1
        link.release(stored.object_id)
        link._report_result(call, outcome)

    io = SimpleNamespace(spawn=lambda nothing, name: None)
    with (
        patch.object(CallerLink, "_fetch", fetch),
        patch("mesh.link.caller_link.io_thread", lambda: io),
        patch("mesh.link.frames.settings", lambda: _SETTINGS),
        patch("mesh.link.writer.settings", lambda: _SETTINGS),
    ):
        yield


STEPS = {
    "open": 4.0,
    "again": 2.0,
    "item": 5.0,
    "cancel": 1.5,
    "respond": 2.0,
    "finish": 2.5,
    "write": 4.0,
    "read": 4.0,
    "pass": 4.0,
    "drain": 0.3,
}
"""How often each is taken, compared with the others."""


@pytest.mark.parametrize("seed", range(4))
def test_each_call_runs_once_and_leaves_nothing(seed: int) -> None:
    """In 250 stories of up to 60 steps."""
    random = Random(seed)

    async def tell() -> int:
        with fetched_at_once():
            return sum(len(story(random).calls) for _ in range(250))

    assert asyncio.run(tell()) > 250


def story(random: Random) -> World:
    world = World(places=random.choice([1, 1, 2, 3]))
    for name in random.choices(list(STEPS), list(STEPS.values()), k=random.randint(5, 60)):
        take(world, name, random)
    if random.random() < 0.4:
        world.caller.end("it broke")
        world.callee.end(CancelReason.LINK_BROKEN)
    else:
        world.settle()
        while world.running:
            world.finish(next(iter(world.running.values())), 5, is_stored=False)
        world.settle()
    assert_nothing_is_left(world)
    return world


def take(world: World, name: str, random: Random) -> None:
    running, size = list(world.running.values()), random.choice([5, LARGE])
    match name:
        case "open":
            world.open(size, streams=random.random() < 0.6)
        case "again" | "cancel" if world.calls:
            getattr(world, name)(random.choice(world.calls))
        case "item" if world.calls:
            world.item(random.choice(world.calls), size)
        case "respond" if running:
            world.respond(random.choice(running), size)
        case "finish" if running:
            world.finish(random.choice(running), size, is_stored=random.random() < 0.3)
        case "write":
            random.choice([world.there, world.back]).write(random.randint(1, 3))
        case "read":
            random.choice([world.there, world.back]).read(random.randint(1, 3))
        case "pass":
            for direction in (world.there, world.back):
                direction.write(random.randint(1, 9))
                direction.read(random.randint(1, 9))
        case "drain":
            world.drain()


def assert_nothing_is_left(world: World) -> None:
    assert len(world.started) == len(set(world.started)), "no call runs twice"
    assert not [call for call in world.calls if call.state is SENT], "all have ended, or been given back"
    assert (world.callee._calls, world.callee._stored) == ({}, {})
    assert world.admission.ongoing == 0
    if world.caller._writer is not None:
        assert world.caller.is_idle
        assert world.caller.unfinished == world.callee.unfinished == 0
        assert (world.callee._dropping, world.there.writer._lanes, world.back.writer._lanes) == ({}, {}, {})
