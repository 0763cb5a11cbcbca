"""The frames of small calls, written and read without protobuf objects, which cost more than all else in a frame.

Opens and Results of calls with one small payload, and small Items, are nearly all frames. The bytes are what protobuf
would write, so any peer may send and read them in its own way: what does not have exactly the form that is written here
goes to protobuf.
What all calls of one caller and method share in their Open (method, route, application, metadata, peer, identity,
tenant) is packed once and kept, and read once. It comes first, with its length in front; what differs follows it, and
protobuf merges the two parts of the context.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from mesh.link.outgoing_call import CallRequest
from mesh.link.parts import FRAME_CALL_ID, FRAMES_FRAME, MalformedFrameError
from mesh.settings import settings
from mesh.v1 import replica_pb2
from mesh.wire.identity import Identity
from mesh.wire.outcome import Times
from mesh.wire.payload import PICKLE, RAW, Payload
from mesh.wire.request_context import RequestContext
from mesh.wire.varints import varint, varint_at

# Fields as protobuf writes them: the number of the field << 3 | 0 for a number, 2 for what has a length in front.
_FRAME_OPEN, _FRAME_ITEM, _FRAME_RESULT = 0x22, 0x2A, 0x3A
_OPEN_SHARED_BYTES, _OPEN_CONTEXT, _OPEN_DEADLINE_MS, _OPEN_PAYLOAD = 0x58, 0x12, 0x18, 0x22
_ITEM_PAYLOAD = 0x0A
_RESULT_PAYLOAD, _RESULT_LOAD, _RESULT_QUEUE_US, _RESULT_USER_US = 0x12, 0x1A, 0x20, 0x28
_CONTEXT_REQUEST_ID, _CONTEXT_TRACEPARENT, _CONTEXT_TRACESTATE = 0x0A, 0x2A, 0x32
_LOAD_ONGOING = 0x08
_PAYLOAD_CODEC, _PAYLOAD_DATA = 0x08, 0x12

_VARINTS = [varint(number) for number in range(2048)]
_SHARED_MAX = 256
_shared: dict[object, bytes] = {}
"""What opens of one caller and method share, packed, by its values."""


def pack_small_open(call_id: int, request: CallRequest, payload: Payload, deadline_ms: int | None) -> bytes:
    """An Open frame with a small payload. Raises ValueError for text that is not UTF-8."""
    context = request.context
    call_context = _field(_CONTEXT_REQUEST_ID, context.request_id.encode())
    if context.traceparent or context.tracestate:
        call_context += _field(_CONTEXT_TRACEPARENT, context.traceparent.encode())
        call_context += _field(_CONTEXT_TRACESTATE, context.tracestate.encode())
    packed = _payload(payload)
    size = len(packed)
    body = b"%b\x12%b%b%b\x22%b%b" % (  # shared, context, deadline_ms, payload
        _shared_part(request),
        _varint(len(call_context)),
        call_context,
        b"" if deadline_ms is None else b"\x18" + varint(deadline_ms),
        _VARINTS[size] if size < 2048 else varint(size),
        packed,
    )
    return _frame(call_id, _FRAME_OPEN, body)


def pack_small_result(call_id: int, payload: Payload, ongoing: int | None, times: Times) -> bytes:
    """A Result frame of a call that went well, with a small payload."""
    packed = _payload(payload)
    size = len(packed)
    queue_us, user_us = times
    body = b"\x12%b%b%b\x20%b\x28%b" % (  # payload, load, queue_us, user_us
        _VARINTS[size] if size < 2048 else varint(size),
        packed,
        b"" if ongoing is None else _load(ongoing),
        _VARINTS[queue_us] if queue_us < 2048 else varint(queue_us),
        _VARINTS[user_us] if user_us < 2048 else varint(user_us),
    )
    return _frame(call_id, _FRAME_RESULT, body)


@lru_cache(1024)
def _load(ongoing: int) -> bytes:
    return _field(_RESULT_LOAD, b"\x08" + _varint(ongoing))


def pack_small_item(call_id: int, payload: Payload) -> bytes:
    """An Item frame with a small payload."""
    return _frame(call_id, _FRAME_ITEM, _field(_ITEM_PAYLOAD, _payload(payload)))


def _shared_part(request: CallRequest) -> bytes:
    context = request.context
    key = (
        request.method,
        context.route,
        context.app,
        context.multiplexed_model_id,
        request.metadata,
        request.peer,
        request.streams_response,
        context.identity,
        context.tenant,
        context.track,
    )
    packed = _shared.get(key)
    if packed is None:
        message = replica_pb2.Open(method=request.method, peer=request.peer, streams_response=request.streams_response)
        message.context.route = context.route
        message.context.app = context.app
        message.context.multiplexed_model_id = context.multiplexed_model_id
        message.context.tenant = context.tenant
        if context.identity is not None:
            context.identity.write(message.context.identity)
        if context.track:
            message.context.track = context.track
        if request.streams_response:
            message.credit = settings().payload.stream_credits
        for name, value in request.metadata:
            message.metadata.add(key=name, value=value.encode() if isinstance(value, str) else value)
        packed = message.SerializeToString()
        packed = _field(_OPEN_SHARED_BYTES, packed)
        if len(_shared) >= _SHARED_MAX:
            _shared.clear()
        _shared[key] = packed
    return packed


def _payload(payload: Payload) -> bytes:
    data: bytes = payload.data  # type: ignore[assignment]
    length = len(data)
    size = _VARINTS[length] if length < 2048 else varint(length)
    return b"\x08\x01\x12%b%b" % (size, data) if payload.codec else b"\x12%b%b" % (size, data)


def _frame(call_id: int, tag: int, body: bytes) -> bytes:
    length = len(body)
    size = _VARINTS[length] if length < 2048 else varint(length)
    number = _VARINTS[call_id] if call_id < 2048 else varint(call_id)
    length += 2 + len(number) + len(size)
    whole = _VARINTS[length] if length < 2048 else varint(length)
    return b"\x0a%b\x08%b%c%b%b" % (whole, number, tag, size, body)


def _field(tag: int, data: bytes) -> bytes:
    length = len(data)
    return b"%c%b%b" % (tag, _VARINTS[length] if length < 2048 else varint(length), data)


def _varint(number: int) -> bytes:
    return _VARINTS[number] if number < 2048 else varint(number)


# ---- Reading ---------------------------------------------------------------------------------------------------------


class FrameReceiver(Protocol):
    """What the frames of a message mean at one end of a link."""

    def on_open(self, call_id: int, request: CallRequest, credit: int) -> None: ...

    def on_small_result(self, call_id: int, payload: Payload, ongoing: int | None, times: Times) -> None:
        """A call has ended well. `ongoing`: the replica's load."""

    def on_item(self, call_id: int, payload: Payload) -> None:
        """One message of a stream, in either direction."""

    def on_frame(self, frame: replica_pb2.Frame, body: memoryview | None) -> None:
        """Any other frame."""


@dataclass(frozen=True, slots=True)
class _Shared:
    """What calls share, as it was read."""

    method: str
    route: str
    app: str
    multiplexed_model_id: str
    metadata: Sequence[tuple[str, bytes]]
    peer: str
    streams_response: bool
    credit: int
    identity: Identity | None
    tenant: str
    track: str


_shared_read: dict[bytes, _Shared] = {}
"""By its bytes."""


def receive_frames(message: bytes, receiver: FrameReceiver) -> None:
    """Pass on the frames of one message. Raises MalformedFrameError or DecodeError for bytes that are not frames."""
    position, end = 0, len(message)
    while position < end:
        if message[position] != FRAMES_FRAME:
            raise MalformedFrameError(f"a field that is not a frame begins at byte {position}")
        try:
            length, start = varint_at(message, position + 1)
        except IndexError:
            raise MalformedFrameError("a frame is cut off") from None
        position = start + length
        if position > end:
            raise MalformedFrameError("a frame is cut off")
        if not _receive_small(message, start, position, receiver):
            receiver.on_frame(replica_pb2.Frame.FromString(message[start:position]), None)


def _receive_small(message: bytes, start: int, stop: int, receiver: FrameReceiver) -> bool:
    """Pass on a small Open, Result or Item; False for every other frame."""
    try:
        if message[start] != FRAME_CALL_ID:
            return False
        call_id, position = varint_at(message, start + 1)
        kind = message[position]
        length, position = _number_at(message, position, kind)
        if position + length != stop:
            return False
        if kind == _FRAME_OPEN:
            request, credit = _read_open(message, position, stop)
        elif kind == _FRAME_RESULT:
            payload, ongoing, times = _read_result(message, position, stop)
        elif kind == _FRAME_ITEM:
            length, position = _number_at(message, position, _ITEM_PAYLOAD)
            if position + length != stop:
                return False
            payload = _read_payload(message, position, stop)
        else:
            return False
    except (_OtherFormError, IndexError, UnicodeDecodeError):
        return False
    # Outside of `try`: what the receiver raises is not a fault of the bytes.
    if kind == _FRAME_OPEN:
        receiver.on_open(call_id, request, credit)
    elif kind == _FRAME_RESULT:
        receiver.on_small_result(call_id, payload, ongoing, times)
    else:
        receiver.on_item(call_id, payload)
    return True


def _read_open(message: bytes, position: int, stop: int) -> tuple[CallRequest, int]:
    length, position = _number_at(message, position, _OPEN_SHARED_BYTES)
    end = position + length
    shared = _read_shared(message[position:end])
    length, position = _number_at(message, end, _OPEN_CONTEXT)
    context_end = position + length
    length, position = _number_at(message, position, _CONTEXT_REQUEST_ID)
    end = position + length
    request_id = message[position:end].decode()
    traceparent = tracestate = ""
    if end < context_end:
        traceparent, end = _text_at(message, end, _CONTEXT_TRACEPARENT)
        tracestate, end = _text_at(message, end, _CONTEXT_TRACESTATE)
    deadline_at_s = None
    if message[end] == _OPEN_DEADLINE_MS:
        deadline_ms, end = varint_at(message, end + 1)
        deadline_at_s = time.monotonic() + deadline_ms / 1000
    length, position = _number_at(message, end, _OPEN_PAYLOAD)
    if position + length != stop:
        raise _OtherFormError
    payload = _read_payload(message, position, stop)
    context = RequestContext(
        request_id,
        shared.route,
        shared.app,
        shared.multiplexed_model_id,
        traceparent,
        tracestate,
        shared.identity,
        shared.tenant,
        shared.track,
    )
    request = CallRequest(
        shared.method, payload, context, deadline_at_s, False, shared.streams_response, shared.metadata, shared.peer
    )
    return request, shared.credit


def _read_result(message: bytes, position: int, stop: int) -> tuple[Payload, int | None, Times]:
    length, position = _number_at(message, position, _RESULT_PAYLOAD)
    end = position + length
    payload = _read_payload(message, position, end)
    ongoing = None
    if message[end] == _RESULT_LOAD:
        length, position = _number_at(message, end, _RESULT_LOAD)
        ongoing, end = _number_at(message, position, _LOAD_ONGOING)
        if position + length != end:
            raise _OtherFormError
    queue_us, position = _number_at(message, end, _RESULT_QUEUE_US)
    user_us, position = _number_at(message, position, _RESULT_USER_US)
    if position != stop:
        raise _OtherFormError
    return payload, ongoing, (queue_us, user_us)


def _read_payload(message: bytes, position: int, stop: int) -> Payload:
    codec = RAW
    if message[position] == _PAYLOAD_CODEC:
        if message[position + 1] != PICKLE:
            raise _OtherFormError
        codec = PICKLE
        position += 2
    length, position = _number_at(message, position, _PAYLOAD_DATA)
    if position + length != stop:
        raise _OtherFormError
    return Payload(codec, message[position:stop])


class _OtherFormError(Exception):
    """The frame is one that protobuf has to read, or is malformed."""


def _number_at(message: bytes, position: int, tag: int) -> tuple[int, int]:
    """What stands behind this tag at `position`, a number or the length of a field, and where that ends."""
    if message[position] != tag:
        raise _OtherFormError
    byte = message[position + 1]
    if byte < 0x80:
        return byte, position + 2
    return varint_at(message, position + 1)


def _read_shared(packed: bytes) -> _Shared:
    shared = _shared_read.get(packed)
    if shared is None:
        message = replica_pb2.Open.FromString(packed)
        context = message.context
        shared = _Shared(
            message.method,
            context.route,
            context.app,
            context.multiplexed_model_id,
            tuple((entry.key, entry.value) for entry in message.metadata),
            message.peer,
            message.streams_response,
            message.credit,
            Identity.read(context.identity) if context.HasField("identity") else None,
            context.tenant,
            context.track,
        )
        if len(_shared_read) >= _SHARED_MAX:
            _shared_read.clear()
        _shared_read[packed] = shared
    return shared


def _text_at(message: bytes, position: int, tag: int) -> tuple[str, int]:
    length, start = _number_at(message, position, tag)
    return message[start : start + length].decode(), start + length
