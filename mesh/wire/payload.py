"""Payloads: Python values and bytes in the form that frames carry.

Values are pickled with protocol 5 by C `pickle`; what it cannot do, or would do wrongly (`__main__` by name),
goes to cloudpickle. Large buffers (numpy arrays) stay out of the pickle: through the node's object store where that
pays, else behind the pickle in the message. They are copied exactly once on the caller's side, because the caller may
change an array after the call was made, and arrive as read-only views. Whatever is large is copied in slices, between
which other threads run.
"""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mesh.cluster import ray_core
from mesh.cluster.ray_objects import StoredObject, load_buffers, store_buffers
from mesh.exceptions import PayloadTooLargeError, UnserializableError
from mesh.memory.sliced_copy import SLICE_BYTES, bytes_of, view_of_copy
from mesh.settings import settings
from mesh.v1 import common_pb2
from mesh.wire import large_pickles

RAW = common_pb2.CODEC_RAW
PICKLE = common_pb2.CODEC_PICKLE
PICKLE_BUFFERS = common_pb2.CODEC_PICKLE_BUFFERS

_OUT_OF_BAND_MIN_BYTES = 16 * 1024
_CREDIT_BYTES = 64 * 1024

Buffer = bytes | memoryview


@dataclass(slots=True)
class Payload:
    """Bytes and how to read them."""

    codec: int
    data: Buffer
    buffers: Sequence[Buffer] = ()
    stored: StoredObject | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes that cross the link."""
        size = len(self.data)
        for buffer in self.buffers:
            size += len(buffer)
        return size

    @property
    def credits(self) -> int:
        """What it takes of a stream's credit: one, and one more for every 64 KiB, so that memory is bounded too."""
        return 1 + (self.size_bytes if self.buffers else len(self.data)) // _CREDIT_BYTES


class StreamPlace:
    """Stands among the arguments of a call in the place of the one whose items follow as a stream."""

    __slots__ = ()

    def __reduce__(self) -> str:
        return "STREAM_PLACE"


STREAM_PLACE = StreamPlace()


def raw(data: Buffer) -> Payload:
    """Bytes as they are. Raises PayloadTooLargeError."""
    _check_size("message", len(data))
    return Payload(RAW, data)


def encode(value: object, what: str = "value", *, store: bool = True) -> Payload:
    """Pickle a value. Raises UnserializableError naming `what` and the reason, PayloadTooLargeError.

    `store`: large buffers may go through the object store; items of streams may not, their order is the link's.
    """
    out_of_band: list[pickle.PickleBuffer] = []

    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        if memoryview(buffer).nbytes < _OUT_OF_BAND_MIN_BYTES:
            return True
        out_of_band.append(buffer)
        return False

    data: Buffer | None
    try:
        if large_pickles.holds_large(value):
            data = large_pickles.dumps(value, keep_in_band)
        else:
            data = pickle.dumps(value, 5, buffer_callback=keep_in_band)
    except Exception:  # objects may raise anything from __reduce__; cloudpickle has the last word
        data = None
    if data is None or (type(data) is bytes and b"__main__" in data):
        out_of_band.clear()
        try:
            data = ray_core.cloudpickle.dumps(value, 5, buffer_callback=keep_in_band)
        except Exception as error:
            reason = str(error)
            advice = "" if reason.endswith(".") else _advice_on(value)  # what ends in a full stop has some
            raise UnserializableError(f"The {what} cannot be pickled: {reason}{advice}") from error
    if not out_of_band:
        _check_size(what, len(data))
        return Payload(PICKLE, data)
    payload = _with_buffers(data, out_of_band, may_store=store)
    _check_size(what, payload.size_bytes)
    return payload


def decode(payload: Payload) -> Any:
    """The value of a payload. Blocks while buffers are fetched when `payload.stored` is set."""
    data = payload.data
    if payload.codec == PICKLE:
        return pickle.loads(data) if type(data) is bytes else large_pickles.loads(data)
    if payload.codec == RAW:
        return bytes_of(data)
    if payload.stored is not None:
        return large_pickles.loads(data, load_buffers(payload.stored))
    return large_pickles.loads(data, [memoryview(buffer).toreadonly() for buffer in payload.buffers])


def _advice_on(value: object) -> str:
    """What to do about a value that is not data, behind the reason why it does not travel."""
    if inspect.iscoroutine(value):
        return f". Await {value.__qualname__} where it is called."
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        return f". Make a list of what {value.__qualname__} yields, or `yield` its items."
    return ". Send data: what cannot travel, such as locks, sockets and clients, is to be made where it is used."


def _check_size(what: str, size_bytes: int) -> None:
    """A link would break on what is too large, and with it every other call on it."""
    limit_bytes = settings().payload.message_max_bytes
    if size_bytes > limit_bytes:
        raise PayloadTooLargeError(what, size_bytes, limit_bytes)


def _with_buffers(data: Buffer, out_of_band: list[pickle.PickleBuffer], *, may_store: bool) -> Payload:
    total = sum(memoryview(buffer).nbytes for buffer in out_of_band)
    store_min = settings().payload.object_store_min_bytes
    if may_store and store_min and total >= store_min and ray_core.is_connected():
        return Payload(PICKLE_BUFFERS, data, stored=store_buffers(out_of_band))
    return Payload(PICKLE_BUFFERS, data, [_copied(buffer.raw()) for buffer in out_of_band])


def _copied(buffer: memoryview) -> Buffer:
    return bytes(buffer) if len(buffer) <= SLICE_BYTES else view_of_copy([buffer])


def write(payload: Payload, message: common_pb2.Payload) -> None:
    """Put a payload into its message, whole."""
    _write_head(payload, message)
    message.data = bytes(payload.data) if isinstance(payload.data, memoryview) else payload.data
    for buffer in payload.buffers:
        message.buffers.append(bytes(buffer))


def write_sections(payload: Payload, message: common_pb2.Payload) -> list[Buffer]:
    """Put only a payload's head into its message; returns the sections that have to follow it."""
    _write_head(payload, message)
    sections = [payload.data, *payload.buffers]
    message.section_bytes.extend(len(section) for section in sections)
    return sections


def read(message: common_pb2.Payload) -> Payload:
    """A payload that stands in its frame whole."""
    codec = message.codec
    if codec != PICKLE_BUFFERS:
        return Payload(codec, message.data)
    if message.HasField("stored"):
        return Payload(codec, message.data, stored=_read_stored(message))
    return Payload(codec, message.data, message.buffers)


def read_sections(message: common_pb2.Payload, body: memoryview) -> Payload:
    """A payload whose sections follow its message's head in `body`. Raises ValueError where lengths do not fit."""
    sections: list[memoryview] = []
    start = 0
    for length in message.section_bytes:
        sections.append(body[start : start + length])
        start += length
    if start != len(body) or not sections:
        raise ValueError(f"sections of {start} bytes in a body of {len(body)}")
    stored = _read_stored(message) if message.HasField("stored") else None
    return Payload(message.codec, sections[0], sections[1:], stored)


def _read_stored(message: common_pb2.Payload) -> StoredObject:
    stored = message.stored
    return StoredObject(stored.object_id, stored.owner, stored.object_status)


def _write_head(payload: Payload, message: common_pb2.Payload) -> None:
    if payload.codec:
        message.codec = payload.codec  # type: ignore[assignment]
    if payload.stored is not None:
        stored = message.stored
        stored.object_id = payload.stored.object_id
        stored.owner = payload.stored.owner
        stored.object_status = payload.stored.status
