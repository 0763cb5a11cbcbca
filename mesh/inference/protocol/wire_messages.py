"""Requests and responses of inference on the wire, with raw tensors that are not copied into messages. Pure.

Protobuf copies a field of bytes twice on its way in, and twice on its way out. These tensors are the bulk of a request:
so they are cut out of it before the rest is parsed, and joined to the rest of a response when that is serialised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from mesh.inference.protocol.messages import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from mesh.wire.varints import varint, varint_at

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_RAW_INPUT_TAG = 7 << 3 | _LENGTH
_RAW_OUTPUT_TAG = bytes([6 << 3 | _LENGTH])
_RESPONSE_TAG = bytes([2 << 3 | _LENGTH])
_FIELDS_MAX = 10_000
"""Fields of a request, which are inputs, outputs and parameters."""


@dataclass(frozen=True, slots=True)
class WireRequest:
    """A ModelInferRequest."""

    message: ModelInferRequest
    """Without its raw contents."""
    raw: Sequence[memoryview] = ()


@dataclass(frozen=True, slots=True)
class WireResponse:
    """A ModelInferResponse, or one of a stream."""

    message: ModelInferResponse
    """Without its raw contents."""
    raw: Sequence[bytes | memoryview] = field(default=())


@dataclass(frozen=True, slots=True)
class StreamFailure:
    """A ModelStreamInferResponse that says why a request of a stream has failed."""

    text: str
    request: ModelInferResponse
    """Names the request: model and id."""


def read_request(data: bytes | memoryview) -> WireRequest:
    """Raises ValueError, or protobuf's DecodeError, for what is not a request."""
    try:
        return _read_request(data)
    except IndexError:
        raise ValueError("it is cut off") from None


setattr(read_request, "reads_views", True)  # noqa: B010  Replicas look for it: a large request is not copied for it.


def _read_request(data: bytes | memoryview) -> WireRequest:
    view = memoryview(data)
    raw: list[memoryview] = []
    rest: list[memoryview] = []
    position = rest_at = fields = 0
    while position < len(data):
        field_at = position
        tag, position = varint_at(data, position)
        value_at, position = _value(data, tag & 7, position)
        fields += 1
        if position > len(data):
            raise ValueError("it is cut off")
        if fields > _FIELDS_MAX:
            raise ValueError(f"it has more than {_FIELDS_MAX} fields")
        if tag == _RAW_INPUT_TAG:
            rest.append(view[rest_at:field_at])
            raw.append(view[value_at:position])
            rest_at = position
    rest.append(view[rest_at:])
    return WireRequest(ModelInferRequest.FromString(b"".join(rest)), raw)


def write_response(response: WireResponse) -> bytes:
    """Serialised; raises AttributeError for anything else."""
    return b"".join(_pieces(response))


def write_stream_response(response: WireResponse | StreamFailure) -> bytes:
    if isinstance(response, StreamFailure):
        message = ModelStreamInferResponse(error_message=response.text, infer_response=response.request)
        return message.SerializeToString()
    pieces = _pieces(response)
    return b"".join((_RESPONSE_TAG, varint(sum(map(len, pieces))), *pieces))


def _pieces(response: WireResponse) -> list[bytes | memoryview]:
    raw = ((_RAW_OUTPUT_TAG, varint(len(each)), each) for each in response.raw)
    return [response.message.SerializeToString(), *chain.from_iterable(raw)]


def _value(data: bytes | memoryview, wire_type: int, position: int) -> tuple[int, int]:
    """Where the value of a field begins and ends."""
    if wire_type == _LENGTH:
        length, start = varint_at(data, position)
        return start, start + length
    if wire_type == _VARINT:
        return position, varint_at(data, position)[1]
    if wire_type in (_FIXED64, _FIXED32):
        return position, position + (8 if wire_type == _FIXED64 else 4)
    raise ValueError(f"it has a field of wire type {wire_type}")
