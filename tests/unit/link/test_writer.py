"""The writer: every frame once, those of one call in order, large messages between the others."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mesh.link import frames, writer
from mesh.link.parts import Assembler, read_part
from mesh.link.writer import CoalescingWriter
from mesh.settings import settings
from mesh.v1 import replica_pb2
from mesh.wire.payload import raw
from tests.unit.fakes.small_mesh import until_async

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
    """The other end: it writes slowly and reads everything into items by call."""

    def __init__(self) -> None:
        self.items: dict[int, list[bytes]] = defaultdict(list)
        self.messages = 0
        self.assembler = Assembler(10_000_000)

    async def write(self, data: bytes) -> None:
        self.messages += 1
        await asyncio.sleep(0)
        for frame in replica_pb2.Frames.FromString(data).frames:
            if frame.WhichOneof("kind") == "part":
                whole = self.assembler.add(read_part(frame.call_id, frame.part))
                if whole is not None:
                    self._item(*whole)
            else:
                self._item(frame, None)

    def _item(self, frame: replica_pb2.Frame, body: memoryview | None) -> None:
        self.items[frame.call_id].append(bytes(frames.read_payload(frame.item.payload, body).data))


async def written(sent: list[tuple[int, int, bool]]) -> tuple[Wire, dict[int, list[bytes]]]:
    """Send items of (call, size, whether to let the writer run first); returns what arrived and what should have."""
    wire = Wire()
    link = CoalescingWriter(wire.write)
    running = asyncio.create_task(link.run())
    expected: dict[int, list[bytes]] = defaultdict(list)
    for number, (call_id, size, pauses) in enumerate(sent):
        data = b"%06d" % number + b"x" * size
        expected[call_id].append(data)
        link.send(frames.pack_item(call_id, raw(data)), call_id)
        if pauses:
            await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await link.flushed()
    running.cancel()
    assert not link._lanes
    assert not link._starts
    assert link.accepted == link.written
    return wire, expected


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), SIZES, st.booleans()), max_size=40))
def test_items_of_a_call_arrive_once_and_in_order(sent: list[tuple[int, int, bool]]) -> None:
    wire, expected = asyncio.run(written(sent))
    assert wire.items == expected


def test_what_is_ready_together_leaves_together() -> None:
    wire, _ = asyncio.run(written([(call_id, 0, False) for call_id in range(1, 4)]))
    assert wire.messages == 1


def test_a_large_message_does_not_hold_up_others() -> None:
    async def scenario() -> tuple[int, int]:
        wire = Wire()
        link = CoalescingWriter(wire.write)
        running = asyncio.create_task(link.run())
        link.send(frames.pack_item(1, raw(b"x" * 1_000_000)), 1)
        await asyncio.sleep(0)
        link.send(frames.pack_item(2, raw(b"small")), 2)
        await until_async(lambda: wire.items[2], "the small item")
        arrived_by_then = wire.messages
        async with asyncio.timeout(10):
            await link.flushed()
        running.cancel()
        return arrived_by_then, wire.messages

    by_then, in_all = asyncio.run(scenario())
    assert by_then < in_all / 10


def test_what_a_call_gave_up_is_not_sent() -> None:
    async def scenario() -> Wire:
        wire = Wire()
        link = CoalescingWriter(wire.write)
        link.send(frames.pack_item(1, raw(b"x" * 500)), 1)
        link.send(frames.pack_item(1, raw(b"behind it")), 1)
        link.send(frames.pack_item(2, raw(b"another's")), 2)
        assert link.holds(1)
        assert link.discard(1)
        assert not link.discard(1)
        running = asyncio.create_task(link.run())
        async with asyncio.timeout(10):
            await link.flushed()
        running.cancel()
        return wire

    assert asyncio.run(scenario()).items == {2: [b"another's"]}


def test_a_closed_writer_lets_those_go_who_wait_for_it() -> None:
    async def scenario() -> None:
        link = CoalescingWriter(Wire().write)
        link.send(frames.pack_half_close(1), 1)
        flushing = asyncio.create_task(link.flushed())
        await asyncio.sleep(0)
        assert not flushing.done()
        link.close()
        async with asyncio.timeout(10):
            await flushing

    asyncio.run(scenario())
