"""The packing of frames: from calls to bytes on a link, and back.

A serialised `Frames` message with one frame is a field prefix and the frame; messages may be concatenated. So every
frame is packed once, by itself, and the writer joins what is ready. A frame whose payload is large becomes a
`LargeMessage`, which crosses the link in parts.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from mesh.exceptions import CancelReason
from mesh.link.outgoing_call import CallRequest
from mesh.link.parts import FRAMES_FRAME, MalformedFrameError, pack_part
from mesh.link.replica_facts import ReplicaFacts
from mesh.link.small_frames import pack_small_item, pack_small_open, pack_small_result
from mesh.settings import settings
from mesh.v1 import common_pb2, replica_pb2
from mesh.wire import payload as payloads
from mesh.wire.outcome import Outcome, Trailers, write_status
from mesh.wire.payload import Buffer, Payload
from mesh.wire.request_context import RequestContext
from mesh.wire.varints import varint

Frame = replica_pb2.Frame
PROTOCOL_VERSION = 1

_DEADLINE_MAX_MS = 2**32 - 1
"""What an Open frame can carry; a later deadline is cut to this."""
_NO_FACTS = ReplicaFacts()


class LargeMessage:
    """A frame head and the sections that follow it, taken part by part; see Part in replica.proto."""

    __slots__ = ("_head_bytes", "_offset", "_sections", "call_id", "total_bytes")

    def __init__(self, call_id: int, head: bytes, sections: Iterable[Buffer]) -> None:
        self.call_id = call_id
        self._head_bytes = len(head)
        self._sections = deque(memoryview(section) for section in (head, *sections) if len(section))
        self.total_bytes = sum(len(section) for section in self._sections)
        self._offset = 0

    @property
    def is_taken(self) -> bool:
        return not self._sections

    def take_part(self, part_bytes: int) -> list[Buffer]:
        """The next packed Part frame with up to `part_bytes` of the message, in pieces."""
        sizes = (self.total_bytes, self._head_bytes) if self._head_bytes else None
        self._head_bytes = 0
        pieces: list[memoryview] = []
        room = part_bytes
        while room and self._sections:
            section = self._sections[0]
            piece = section[self._offset : self._offset + room]
            pieces.append(piece)
            room -= len(piece)
            self._offset += len(piece)
            if self._offset == len(section):
                self._sections.popleft()
                self._offset = 0
        return pack_part(self.call_id, sizes, pieces)


Packed = bytes | LargeMessage


_PREFIXES_MAX = 2048
_FRAMES_TAG = bytes((FRAMES_FRAME,))
_PREFIXES = [_FRAMES_TAG + varint(length) for length in range(_PREFIXES_MAX)]
"""By length of the frame: for the small frames, which are nearly all."""


def pack(frame: Frame) -> bytes:
    """One frame as a serialised Frames message."""
    body = frame.SerializeToString()
    length = len(body)
    return (_PREFIXES[length] if length < _PREFIXES_MAX else _FRAMES_TAG + varint(length)) + body


def pack_open(call_id: int, request: CallRequest) -> Packed:
    """Starts a call. Raises TypeError, ValueError or OverflowError for what no frame can carry."""
    payload = request.payload
    if payload is not None and _is_small(payload) and not (request.streams_request or request.is_beyond_limit):
        return pack_small_open(call_id, request, payload, _deadline_ms(request))
    frame = Frame()
    frame.call_id = call_id
    message = frame.open
    message.method = request.method
    request.context.write(message.context)
    deadline_ms = _deadline_ms(request)
    if deadline_ms is not None:
        message.deadline_ms = deadline_ms
    if request.streams_response:
        message.streams_response = True
        message.credit = settings().payload.stream_credits
    if request.streams_request:
        message.streams_request = True
    if request.is_beyond_limit:
        message.beyond_limit = True
    for key, value in request.metadata:
        message.metadata.add(key=key, value=value.encode() if isinstance(value, str) else value)
    if request.peer:
        message.peer = request.peer
    return pack(frame) if payload is None else _pack_with(frame, payload, message.payload)


def read_open(message: replica_pb2.Open, body: memoryview | None) -> CallRequest:
    """The request of an Open frame; `body` are the sections that followed it, if it came in parts."""
    payload: Payload | None = None
    if message.HasField("payload"):
        payload = read_payload(message.payload, body)
    return CallRequest(
        message.method,
        payload,
        RequestContext.read(message.context),
        time.monotonic() + message.deadline_ms / 1000 if message.HasField("deadline_ms") else None,
        message.streams_request,
        message.streams_response,
        tuple((entry.key, entry.value) for entry in message.metadata) if message.metadata else (),
        message.peer,
        is_beyond_limit=message.beyond_limit,
    )


def read_payload(message: common_pb2.Payload, body: memoryview | None) -> Payload:
    """Raises MalformedFrameError where the sections in `body` are not those that the message names."""
    if body is None:
        return payloads.read(message)
    try:
        return payloads.read_sections(message, body)
    except ValueError as error:
        raise MalformedFrameError(str(error)) from error


def pack_item(call_id: int, payload: Payload) -> Packed:
    """One message of a stream, in either direction."""
    if _is_small(payload):
        return pack_small_item(call_id, payload)
    frame = Frame()
    frame.call_id = call_id
    return _pack_with(frame, payload, frame.item.payload)


def pack_initial_metadata(call_id: int, entries: Trailers) -> bytes:
    """The initial metadata of a gRPC response."""
    frame = Frame(call_id=call_id)
    frame.initial_metadata.SetInParent()  # also without entries: the client gets the headers now
    for key, value in entries:
        frame.initial_metadata.entries.add(key=key, value=value)
    return pack(frame)


def pack_compression(call_id: int, encoding: str, *, skips_next: bool) -> bytes:
    """How the messages of a gRPC response are to be compressed."""
    return pack(Frame(call_id=call_id, compression=replica_pb2.Compression(encoding=encoding, skips_next=skips_next)))


def pack_result(call_id: int, outcome: Outcome, ongoing: int | None) -> Packed:
    """Ends a call. `ongoing` is the replica's load; None if the result may arrive too late for it."""
    payload = outcome.payload
    if payload is not None and not (outcome.code or outcome.trailers or outcome.message) and _is_small(payload):
        return pack_small_result(call_id, payload, ongoing, outcome.times)
    frame = Frame()
    frame.call_id = call_id
    message = frame.result
    message.SetInParent()  # also when no field is set
    message.queue_us, message.user_us = outcome.times
    if ongoing is not None:
        message.load.ongoing = ongoing
    if outcome.code or outcome.trailers or outcome.message:
        write_status(outcome, message.status)
    if outcome.payload is None:
        return pack(frame)
    return _pack_with(frame, outcome.payload, message.payload)


def pack_half_close(call_id: int) -> bytes:
    """Ends the caller's stream of request items."""
    return pack(Frame(call_id=call_id, half_close=replica_pb2.HalfClose()))


def pack_cancel(call_id: int, reason: CancelReason) -> bytes:
    """Asks the replica to cancel a call, which it still ends with a Result."""
    cancel = replica_pb2.Cancel(reason=reason.value)  # type: ignore[arg-type]
    return pack(Frame(call_id=call_id, cancel=cancel))


def pack_credit(call_id: int, credits: int) -> bytes:
    """Lets the peer send more items, see Payload.credits."""
    return pack(Frame(call_id=call_id, credit=replica_pb2.Credit(credits=credits)))


def pack_reject(call_id: int, ongoing: int, *, is_draining: bool) -> bytes:
    """Returns a call that was not executed, with the replica's load."""
    frame = Frame(call_id=call_id)
    frame.reject.load.ongoing = ongoing
    frame.reject.draining = is_draining
    return pack(frame)


def pack_load(ongoing: int, *, offers_place: bool = False) -> bytes:
    """The replica's load, see Load in common.proto."""
    frame = Frame()
    frame.load.ongoing = ongoing
    frame.load.offers_place = offers_place
    return pack(frame)


def pack_decline() -> bytes:
    """The caller has no call for the place that it was offered."""
    return pack(Frame(decline=replica_pb2.Decline()))


def pack_drain() -> bytes:
    """From a replica: send no more calls. From a caller: acknowledged, and no call follows."""
    return pack(Frame(drain=replica_pb2.Drain()))


def pack_release(object_id: bytes) -> bytes:
    """The stored object has arrived; its sender may let go."""
    return pack(Frame(release=replica_pb2.Release(object_id=object_id)))


def pack_models(model_ids: Iterable[str]) -> bytes:
    """The complete list of models that the replica has or loads."""
    return pack(Frame(models=replica_pb2.Models(model_ids=model_ids)))


def pack_hello(replica_id: str, token: bytes) -> bytes:
    """The first frame of a caller, with the token of the mesh."""
    hello = replica_pb2.Hello(protocol_version=PROTOCOL_VERSION, replica_id=replica_id, token=token)
    return pack(Frame(hello=hello))


def pack_routing_stats(stats: Mapping[str, Any]) -> bytes:
    """The latest figures of the user's `record_routing_stats`: JSON values."""
    return pack(Frame(routing_stats=replica_pb2.RoutingStats(json=json.dumps(stats))))


def pack_welcome(ongoing: int, facts: ReplicaFacts = _NO_FACTS) -> bytes:
    """The first frame of a replica, with its load and what its callers know of it."""
    frame = Frame()
    welcome = frame.welcome
    welcome.protocol_version = PROTOCOL_VERSION
    welcome.load.ongoing = ongoing
    facts.write(welcome)
    return pack(frame)


def _is_small(payload: Payload) -> bool:
    """Whether a frame with this payload is one that is written without protobuf."""
    data = payload.data
    return (
        payload.codec != payloads.PICKLE_BUFFERS and type(data) is bytes and len(data) <= settings().payload.part_bytes
    )


def _deadline_ms(request: CallRequest) -> int | None:
    if request.deadline_at_s is None:
        return None
    return int(min(max(0.0, request.deadline_at_s - time.monotonic()) * 1000, _DEADLINE_MAX_MS))


def _pack_with(frame: Frame, payload: Payload, message: common_pb2.Payload) -> Packed:
    if payload.size_bytes <= settings().payload.part_bytes:
        payloads.write(payload, message)
        return pack(frame)
    sections = payloads.write_sections(payload, message)
    return LargeMessage(frame.call_id, frame.SerializeToString(), sections)
