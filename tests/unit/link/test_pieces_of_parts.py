"""Large parts are passed on as they come, wherever their bytes are cut, and all else stays as it was sent."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.http2.frame_format import ErrorCode
from mesh.link import frames
from mesh.link.frames import LargeMessage
from mesh.link.link_stream import LinkStream
from mesh.link.parts import Assembler, MalformedFrameError, PartView, begun_part, find_part, read_part
from mesh.v1 import replica_pb2
from mesh.wire.payload import raw

PART_BYTES = 40_000
BODY = bytes(range(256)) * 500


def message(body: bytes) -> bytes:
    return b"\0" + len(body).to_bytes(4, "big") + body


class Receiver:
    """What one end of a link gets."""

    def __init__(self) -> None:
        self.given = 0
        self.views: list[PartView] = []
        self.wholes: list[bytes] = []
        self.small: list[int] = []
        self.ended: list[tuple[str, ErrorCode | int]] = []
        self._assembler = Assembler(10_000_000)
        connection = SimpleNamespace(give_room=self._give_room)
        self.stream: Any = SimpleNamespace(connection=connection, has_ended=False)
        self.link = self.stream.receiver = LinkStream(self.on_message, self.on_end)
        self.link.become(self.on_message, self.on_part, self.on_end)

    def on_message(self, data: bytes) -> None:
        part = find_part(data)
        if part is not None:
            self.on_part(part)
            return
        for frame in replica_pb2.Frames.FromString(data).frames:
            if frame.WhichOneof("kind") == "part":
                self.on_part(read_part(frame.call_id, frame.part))
            else:
                self.small.append(frame.call_id)

    def on_part(self, part: PartView) -> None:
        self.views.append(part)
        whole = self._assembler.add(part)
        if whole is not None:
            head, body = whole
            self.wholes.append(bytes(frames.read_payload(head.item.payload, body).data))

    def on_end(self, reason: str, code: ErrorCode | int) -> None:
        self.ended.append((reason, code))

    def _give_room(self, stream: Any, size: int) -> None:
        self.given += size

    def feed(self, data: bytes, sizes: list[int]) -> None:
        """The bytes as they may come: each piece somewhere in what was read."""
        for size in [*sizes, len(data)]:
            piece, data = data[:size], data[size:]
            if piece:
                self.stream.receiver.on_data(self.stream, b"head" + piece + b"tail", 4, 4 + len(piece))


def parts_of(call_id: int, body: bytes) -> list[bytes]:
    frame = replica_pb2.Frame(call_id=call_id)
    frame.item.payload.section_bytes.append(len(body))
    large = LargeMessage(call_id, frame.SerializeToString(), [body])
    parts = []
    while not large.is_taken:
        parts.append(b"".join(large.take_part(PART_BYTES)))
    return parts


def received(data: bytes, sizes: list[int]) -> Receiver:
    async def run() -> Receiver:
        receiver = Receiver()
        receiver.feed(data, sizes)
        return receiver

    return asyncio.run(run())


@given(sizes=st.lists(st.integers(1, 60_000), max_size=30))
def test_messages_come_whole_and_in_order_wherever_their_bytes_are_cut(sizes: list[int]) -> None:
    first, second = parts_of(1, BODY), parts_of(2, BODY[::-1])
    small = frames.pack_item(3, raw(b"small"))
    sent = [first[0], small, second[0], first[1], *second[1:], small, *first[2:], small]
    data = b"".join(map(message, sent))
    receiver = received(data, sizes)
    assert receiver.wholes == [BODY[::-1], BODY]
    assert receiver.small == [3, 3, 3]
    assert receiver.given == len(data), "all of it is given back to the peer's window"
    assert not receiver.ended


def test_a_part_is_not_collected_before_it_is_passed_on() -> None:
    data = message(parts_of(1, BODY)[0])
    receiver = received(data, [10_000] * 4)
    assert [len(view.data) for view in receiver.views[:3]] == [10_000 - len(data) + PART_BYTES, 10_000, 10_000]
    assert receiver.views[0].total_bytes > len(BODY)


def test_before_the_hello_parts_are_messages_like_others() -> None:
    """A stranger's part must not reach a link that was not accepted."""
    got: list[bytes] = []

    async def run() -> None:
        receiver = LinkStream(got.append, lambda reason, code: None)
        part = parts_of(1, BODY)[0]
        data = message(part)
        stream: Any = SimpleNamespace(connection=SimpleNamespace(give_room=lambda *_: None), has_ended=False)
        receiver.on_data(stream, data, 0, 20_000)
        receiver.on_data(stream, data, 20_000, len(data))
        assert got == [part]

    asyncio.run(run())


def test_a_receiver_that_finds_a_part_wrong_ends_the_link() -> None:
    async def run() -> list[tuple[str, ErrorCode | int]]:
        receiver = Receiver()

        def refuse(part: PartView) -> None:
            raise MalformedFrameError("wrong")

        receiver.link.become(receiver.on_message, refuse, receiver.on_end)
        receiver.feed(message(parts_of(1, BODY)[0]), [10_000])
        return receiver.ended

    assert asyncio.run(run()) == [("malformed frames: wrong", ErrorCode.PROTOCOL_ERROR)]


@pytest.mark.parametrize(
    "data",
    [
        message(parts_of(1, BODY)[0])[:60],
        b"\1" + message(parts_of(1, BODY)[0])[1:20_000],
        message(frames.pack_item(1, raw(bytes(30_000))))[:20_000],
        message(parts_of(1, bytes(10_000))[0])[:5_000],
        message(parts_of(1, BODY)[0])[:20_000].replace(b"\x1a", b"\x22", 1),
    ],
    ids=["hardly begun", "compressed", "another frame", "small", "another field"],
)
def test_what_is_not_the_beginning_of_a_large_part(data: bytes) -> None:
    assert begun_part(data, 0, len(data)) is None
