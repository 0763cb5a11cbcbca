"""The parts of large messages: their bytes on the wire, and their assembly.

A part is the one kind of frame that protobuf's runtime does not handle: it would copy the bytes twice at either end.
`pack_part` gives the same bytes as serialising the message would (a test compares them) and does not copy the data.
`unpack_part` finds the data in a received message without copying it, `begun_part` in the beginning of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from mesh.http2.frame_format import MESSAGE_PREFIX_BYTES
from mesh.memory.buffer_pool import buffer_pool
from mesh.v1 import replica_pb2
from mesh.wire.payload import Buffer
from mesh.wire.varints import varint, varint_at

FRAMES_FRAME = 0x0A  # field 1, length-delimited
FRAME_CALL_ID = 0x08  # field 1, varint
_FRAME_PART = 0x6A  # field 13, length-delimited
_PART_TOTAL_BYTES = 0x08  # field 1, varint
_PART_HEAD_BYTES = 0x10  # field 2, varint
_PART_DATA = 0x1A  # field 3, length-delimited
_HAND_READ_MIN_BYTES = 16 * 1024
_PREFIX_BYTES_MAX = 64
"""Upper bound of the length of what stands before the data."""
ALIGNMENT_BYTES = 64
"""Of arrays, as numpy and vectorised code like it best."""
_KINDS_WITH_PAYLOAD = ("open", "result", "item")
_SEARCHED_BYTES = 4_096
_LARGE_SHARE = 4
"""A field of a protobuf message that is a quarter of it counts as an array, such as the tensor of an inference."""


class MalformedFrameError(Exception):
    """The peer broke the protocol; the link has to be closed."""


@dataclass(frozen=True, slots=True)
class PartView:
    """A part whose data has not been copied from the message it came in."""

    call_id: int
    total_bytes: int
    head_bytes: int
    data: bytes | memoryview


def pack_part(call_id: int, sizes: tuple[int, int] | None, pieces: Sequence[memoryview]) -> list[Buffer]:
    """A serialised Frames message with one Part, in pieces. `sizes`: total and head bytes, on the first part only."""
    length = sum(len(piece) for piece in pieces)
    announced = b""
    if sizes is not None:
        announced = b"%c%b%c%b" % (_PART_TOTAL_BYTES, varint(sizes[0]), _PART_HEAD_BYTES, varint(sizes[1]))
    part = b"%b%c%b" % (announced, _PART_DATA, varint(length))
    frame = b"%c%b%c%b%b" % (FRAME_CALL_ID, varint(call_id), _FRAME_PART, varint(len(part) + length), part)
    return [b"%c%b%b" % (FRAMES_FRAME, varint(len(frame) + length), frame), *pieces]


def unpack_part(message: bytes) -> PartView | None:
    """The part of a large message that consists of one part and nothing else; None for every other message.

    Looking into small messages would cost more than copying the few parts among them.
    """
    return find_part(message) if len(message) >= _HAND_READ_MIN_BYTES else None


def find_part(message: bytes) -> PartView | None:
    """The part of a message that is one part in the form of `pack_part`, whatever its size."""
    return _part_in(message, 0, len(message), len(message))


def begun_part(data: bytes, start: int, stop: int) -> tuple[PartView, int] | None:
    """What `data[start:stop]` has of a large part, if that is the beginning of a gRPC message with nothing else in it.

    Also the number of bytes to come, with which the part goes on. None for every other message.
    """
    first = start + MESSAGE_PREFIX_BYTES
    if stop - first < _PREFIX_BYTES_MAX or data[start]:
        return None
    length = int.from_bytes(data[start + 1 : first], "big")
    if length < max(_HAND_READ_MIN_BYTES, stop - first):
        return None
    part = _part_in(data, first, stop, first + length)
    return None if part is None else (part, first + length - stop)


def _part_in(data: bytes, start: int, stop: int, end: int) -> PartView | None:
    """The part that a message is, with the data that is here: `data[start:stop]` of a message that ends at `end`."""
    try:
        return _read_part(data, start, stop, end)
    except IndexError:  # it ends within the form
        return None


def _read_part(data: bytes, start: int, stop: int, end: int) -> PartView | None:
    numbers: dict[int, int] = {}
    position = 0
    head = data[start : min(stop, start + _PREFIX_BYTES_MAX)]
    for tag in (FRAMES_FRAME, FRAME_CALL_ID, _FRAME_PART):
        if head[position] != tag:
            return None
        numbers[tag], position = varint_at(head, position + 1)
    total_bytes = head_bytes = 0
    if head[position] == _PART_TOTAL_BYTES:
        total_bytes, position = varint_at(head, position + 1)
        if head[position] != _PART_HEAD_BYTES:
            return None
        head_bytes, position = varint_at(head, position + 1)
    if head[position] != _PART_DATA:
        return None
    length, position = varint_at(head, position + 1)
    if start + position + length != end:
        return None
    return PartView(numbers[FRAME_CALL_ID], total_bytes, head_bytes, memoryview(data)[start + position : stop])


def read_part(call_id: int, part: replica_pb2.Part) -> PartView:
    """A part that came in among other frames."""
    return PartView(call_id, part.total_bytes, part.head_bytes, part.data)


class _Assembly:
    """A message on its way, in a buffer that takes memory and time only for what has come."""

    __slots__ = ("_buffer", "filled", "head_bytes", "total_bytes")

    def __init__(self, total_bytes: int, head_bytes: int, aligned_byte: int) -> None:
        """`aligned_byte`: the one that is put to a multiple of ALIGNMENT_BYTES in memory."""
        self.total_bytes = total_bytes
        self.head_bytes = head_bytes
        self.filled = 0
        shift = -aligned_byte % ALIGNMENT_BYTES
        self._buffer = buffer_pool().take(total_bytes + shift)[shift:]

    def append(self, data: bytes | memoryview) -> None:
        self._buffer[self.filled : self.filled + len(data)] = data
        self.filled += len(data)

    def view(self) -> memoryview:
        return self._buffer.toreadonly()


class Assembler:
    """Collects parts by call and gives back whole frames.

    Each message is received into one buffer, of which the payload's sections are views: large arrays are copied once
    on arrival and never again. The first of them is aligned, and so are those behind it whose items fit its length. Of
    a message that is protobuf, its first large field is.
    """

    def __init__(self, message_max_bytes: int) -> None:
        self._message_max_bytes = message_max_bytes
        self._assemblies: dict[int, _Assembly] = {}

    def __len__(self) -> int:
        """Messages of which parts are missing."""
        return len(self._assemblies)

    def add(self, part: PartView) -> tuple[replica_pb2.Frame, memoryview] | None:
        """Take one part; when it was the last, returns the frame's head and its sections' bytes.

        Raises MalformedFrameError for a message that is too large, or parts that do not fit.
        """
        call_id = part.call_id
        assembly = self._assemblies.get(call_id)
        if assembly is None:
            assembly = self._begin(call_id, part)
        if assembly.filled + len(part.data) > assembly.total_bytes:
            raise MalformedFrameError(f"parts of call {call_id} exceed the announced {assembly.total_bytes} bytes")
        assembly.append(part.data)
        if assembly.filled < assembly.total_bytes:
            return None
        del self._assemblies[call_id]
        view = assembly.view()
        head = replica_pb2.Frame.FromString(bytes(view[: assembly.head_bytes]))
        return head, view[assembly.head_bytes :]

    def discard(self, call_id: int) -> bool:
        """Forget an unfinished message; returns whether there was one."""
        return self._assemblies.pop(call_id, None) is not None

    def _begin(self, call_id: int, part: PartView) -> _Assembly:
        limit, head, total = self._message_max_bytes, part.head_bytes, part.total_bytes
        # The limit is on payloads; a frame's head comes on top.
        if not 0 < head <= total or max(head, total - head) > limit:
            raise MalformedFrameError(
                f"message of {total} bytes with a head of {head} on call {call_id}; the limit is {limit}"
            )
        assembly = self._assemblies[call_id] = _Assembly(total, head, _first_array(part.data, head, total))
        return assembly


def _first_array(data: bytes | memoryview, head_bytes: int, total_bytes: int) -> int:
    """Where the first array begins in a message that begins with `data`; 0 if it has none, or its head is cut off."""
    if len(data) < head_bytes:
        return 0
    try:
        frame = replica_pb2.Frame.FromString(bytes(data[:head_bytes]))
    except DecodeError:  # as it will be when the message is whole
        return 0
    kind = frame.WhichOneof("kind")
    if kind not in _KINDS_WITH_PAYLOAD:
        return 0
    sizes: Sequence[int] = getattr(frame, kind).payload.section_bytes
    if len(sizes) > 1:
        return head_bytes + sizes[0]
    beginning = bytes(data[head_bytes : head_bytes + _SEARCHED_BYTES])
    return head_bytes + _large_field(beginning, (total_bytes - head_bytes) // _LARGE_SHARE)


def _large_field(message: bytes, bytes_min: int) -> int:
    """Where the first field of at least this length begins, in what a protobuf message begins with; 0 for none.

    Any other bytes may be read as one too; what is found in them is of no use, and does no harm.
    """
    position = 0
    try:
        while True:
            tag, position = varint_at(message, position)
            match tag & 7:
                case 0:
                    position = varint_at(message, position)[1]
                case 1:
                    position += 8
                case 2:
                    length, position = varint_at(message, position)
                    if length >= bytes_min:
                        return position
                    position += length
                case 5:
                    position += 4
                case _:
                    return 0
    except IndexError:
        return 0
