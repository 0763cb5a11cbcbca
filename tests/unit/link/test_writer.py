"""The writer: every frame once, those of one call in order, large messages between the others."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mesh.link import frames, writer
from mesh.link.parts import Assembler, read_part
from mesh.link.writer import LinkWriter
from mesh.settings import settings
from mesh.v1 import replica_pb2
from mesh.wire.payload import raw

SMALL = replace(
    settings(),
    payload=replace(settings().payload, part_bytes=50),
    link=replace(settings().link, batch_max_bytes=60),
)
SIZES = st.sampled_from([0, 10, 40, 50, 51, 99, 130, 260])


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "settings", lambda: SMALL)
    monkeypatch.setattr(writer, "settings", lambda: SMALL)


class Wire:
    """The other end: it reads everything into items by call, as far as its window lets it come."""

    def __init__(self, window: int = 10**9) -> None:
        self.items: dict[int, list[bytes]] = defaultdict(list)
        self.messages = 0
        self.assembler = Assembler(10_000_000)
        self.window = window
        self.connection = SimpleNamespace(outbox=self)
        self.stream: Any = SimpleNamespace(connection=self.connection, pending=None, has_ended=False)
        self.writer: LinkWriter

    def send_message(self, stream: object, data: bytes) -> None:
        del stream
        self.messages += 1
        self.window -= 1
        self.stream.pending = None if self.window > 0 else "the window is closed"
        for frame in replica_pb2.Frames.FromString(data).frames:
            if frame.WhichOneof("kind") == "part":
                whole = self.assembler.add(read_part(frame.call_id, frame.part))
                if whole is not None:
                    self._item(*whole)
            else:
                self._item(frame, None)

    def send_pieces(self, stream: object, pieces: list[bytes | memoryview]) -> None:
        self.send_message(stream, b"".join(pieces))

    def open_window(self, messages: int) -> None:
        self.window = messages
        self.stream.pending = None
        self.writer.write()

    def _item(self, frame: replica_pb2.Frame, body: memoryview | None) -> None:
        self.items[frame.call_id].append(bytes(frames.read_payload(frame.item.payload, body).data))


def writer_to(wire: Wire) -> LinkWriter:
    wire.writer = LinkWriter(wire.stream)
    return wire.writer


async def written(sent: list[tuple[int, int, bool]], window: int = 10**9) -> tuple[Wire, dict[int, list[bytes]]]:
    """Send items of (call, size, whether a turn ends behind it); returns what arrived and what should have.

    `window`: messages that the other end takes before it opens its window again.
    """
    wire = Wire(window)
    link = writer_to(wire)
    expected: dict[int, list[bytes]] = defaultdict(list)
    for number, (call_id, size, pauses) in enumerate(sent):
        data = b"%06d" % number + b"x" * size
        expected[call_id].append(data)
        link.send(frames.pack_item(call_id, raw(data)), call_id)
        if pauses:
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    flushing = asyncio.create_task(link.flushed())
    while link._small or link._large:
        await asyncio.sleep(0)
        assert not flushing.done()
        wire.open_window(window)
    async with asyncio.timeout(30):
        await flushing
    assert not link._lanes
    assert not link._starts
    assert link.accepted == link.written
    return wire, expected


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), SIZES, st.booleans()), max_size=40), st.sampled_from([1, 2, 5, 10**9]))
def test_items_of_a_call_arrive_once_and_in_order(sent: list[tuple[int, int, bool]], window: int) -> None:
    wire, expected = asyncio.run(written(sent, window))
    assert wire.items == expected


def test_what_is_ready_together_leaves_together() -> None:
    wire, _ = asyncio.run(written([(call_id, 0, False) for call_id in range(1, 4)]))
    assert wire.messages == 1


def test_a_large_message_does_not_hold_up_others() -> None:
    async def scenario() -> int:
        wire = Wire(window=1)
        link = writer_to(wire)
        link.send(frames.pack_item(1, raw(b"x" * 1_000_000)), 1)
        await asyncio.sleep(0)
        assert wire.messages == 1
        link.send(frames.pack_item(2, raw(b"small")), 2)
        wire.open_window(1)
        assert wire.items == {2: [b"small"]}
        return wire.messages

    assert asyncio.run(scenario()) == 2


def test_what_a_call_gave_up_is_not_sent() -> None:
    async def scenario() -> Wire:
        wire = Wire()
        link = writer_to(wire)
        link.send(frames.pack_item(1, raw(b"x" * 500)), 1)
        link.send(frames.pack_item(1, raw(b"behind it")), 1)
        link.send(frames.pack_item(2, raw(b"another's")), 2)
        assert link.holds(1)
        assert link.discard(1)
        assert not link.discard(1)
        async with asyncio.timeout(30):
            await link.flushed()
        return wire

    assert asyncio.run(scenario()).items == {2: [b"another's"]}


def test_the_end_of_the_stream_lets_those_go_who_wait_for_it() -> None:
    async def scenario() -> None:
        wire = Wire(window=0)
        link = writer_to(wire)
        wire.stream.pending = "the window is closed"
        link.send(frames.pack_half_close(1), 1)
        flushing = asyncio.create_task(link.flushed())
        await asyncio.sleep(0)
        assert not flushing.done()
        wire.stream.has_ended = True
        link.close()
        async with asyncio.timeout(30):
            await flushing

    asyncio.run(scenario())


def test_of_a_state_only_the_latest_waits_for_a_peer_that_does_not_read() -> None:
    async def scenario() -> tuple[int, int, Wire]:
        wire = Wire(window=1)
        link = writer_to(wire)
        link.send(frames.pack_item(1, raw(b"fills the window")), 1)
        await asyncio.sleep(0)
        for number in range(10_000):
            link.send_state("state", frames.pack_item(2, raw(b"%d" % number)))
        await asyncio.sleep(0)
        waiting = len(link._small) + len(link._states)
        wire.open_window(10)
        return waiting, wire.messages, wire

    waiting, messages, wire = asyncio.run(scenario())
    assert (waiting, messages) == (1, 2)
    assert wire.items[2] == [b"9999"]
