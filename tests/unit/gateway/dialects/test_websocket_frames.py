"""The framing of WebSockets under any bytes: well-formed frames, frames with wrong bytes in them, and noise."""

from __future__ import annotations

import zlib
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from gateway.websockets.websocket_frames import Message, WebSocketFrames

MESSAGE_MAX_BYTES = 300
HEAD_MAX_BYTES = 14


def packed(data: bytes) -> bytes:
    """As permessage-deflate has it."""
    packer = zlib.compressobj(wbits=-15)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def serialised(opcode: Opcode, data: bytes, ends: bool, is_compressed: bool) -> bytes:
    frame = Frame(opcode, packed(data) if is_compressed else data, fin=ends, rsv1=is_compressed)
    # Not by its own method, which checks what a client may send.
    head = bytes((frame.fin << 7 | frame.rsv1 << 6 | opcode,))
    size = len(frame.data)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return head + length + bytes(4) + frame.data


FRAMES = st.builds(
    serialised,
    st.sampled_from(Opcode),
    st.binary(max_size=140) | st.text(max_size=40).map(str.encode) | st.integers(0, 2_000).map(bytes),
    st.booleans(),
    st.booleans(),
)
STREAMS = st.lists(FRAMES, max_size=8).map(b"".join)
CUTS = st.lists(st.integers(0, 600), max_size=8)


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """Frames with a few bytes changed, or noise."""
    data = bytearray(draw(STREAMS | st.binary(max_size=200)))
    for _ in range(draw(st.integers(0, 3)) if data else 0):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


def read(data: bytes, cuts: list[int], *, is_deflated: bool) -> tuple[list[Message], tuple[int, str] | None]:
    """Messages, and how the socket has closed; the data come in pieces."""
    deflate = PerMessageDeflate(False, False, 15, 15) if is_deflated else None
    frames = WebSocketFrames(MESSAGE_MAX_BYTES, deflate)
    messages: list[Message] = []
    places = sorted({0, *(each for each in cuts if each < len(data)), len(data)})
    for start, stop in pairwise(places):
        if frames.closed is None:
            messages += frames.receive(data[start:stop])
            frames.to_send()
            assert frames.begun_bytes <= 2 * MESSAGE_MAX_BYTES + HEAD_MAX_BYTES
    return messages, frames.closed


@given(hostile(), CUTS, st.booleans())
def test_frames_mean_the_same_however_they_are_cut(data: bytes, cuts: list[int], is_deflated: bool) -> None:
    """Nothing raises, nothing above the limit is a message or is kept, and nothing behind a fault is a message.

    Of two faults in one piece the second may be the one that the client hears of.
    """
    whole_messages, whole_closed = read(data, [], is_deflated=is_deflated)
    for places in (cuts, [*range(len(data))]):
        messages, closed = read(data, places, is_deflated=is_deflated)
        assert messages == whole_messages
        assert (closed is None) is (whole_closed is None)
    for each in messages:
        assert len(each if isinstance(each, bytes) else each.encode()) <= MESSAGE_MAX_BYTES


def test_large_frames_are_received_in_large_slices_and_small_ones_in_small() -> None:
    """A slice of 64 KiB may hold 10,000 empty frames, which would keep the loop for a tenth of a second."""
    frames = WebSocketFrames(2**20)
    large, empty = serialised(Opcode.BINARY, bytes(60_000), True, False), serialised(Opcode.BINARY, b"", True, False)
    sizes = []
    for data in (large, large, large, empty * 100, large):
        frames.receive(data)
        sizes.append(frames.slice_bytes)
    assert sizes == [16_384, 65_536, 65_536, 1_024, 4_096]


def test_compressed_frames_are_received_in_small_slices() -> None:
    frames = WebSocketFrames(2**20, PerMessageDeflate(False, False, 15, 15))
    frames.receive(serialised(Opcode.BINARY, bytes(60_000), True, True))
    assert frames.slice_bytes == 4_096
