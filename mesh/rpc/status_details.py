"""The details of a gRPC status: messages in a `google.rpc.Status`, which travels as one trailer.

Clients take a status only if code and message of that trailer are those of the status itself, and only as many bytes of
trailers as they like, by default 8 KiB.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message

# The import of error_details_pb2 also makes the messages that details usually are known by name.
from google.rpc import error_details_pb2, status_pb2

from mesh.rpc.grpc_fields import quote_message

DETAILS_KEY = "grpc-status-details-bin"
DETAILS_MAX_WIRE_BYTES = 7 * 1024
"""Size of a status and its message in the trailers; the rest of the 8 KiB is for other trailers."""

_EXAMPLE = f"{error_details_pb2.__name__}.{error_details_pb2.ErrorInfo.__name__}"


def encode_details(code: int, message: str, details: Sequence[Message]) -> bytes:
    """The value of the trailer. Raises TypeError for what is not a message, ValueError for more than clients take."""
    status = status_pb2.Status(code=code, message=message)
    for detail in details:
        if not isinstance(detail, Message):
            raise TypeError(f"Error details are protobuf messages, such as {_EXAMPLE}, not {type(detail).__name__}.")
        if isinstance(detail, Any):
            status.details.append(detail)
        else:
            status.details.add().Pack(detail)
    data: bytes = status.SerializeToString()
    size = len(quote_message(message)) + (len(data) + 2) // 3 * 4
    if size > DETAILS_MAX_WIRE_BYTES:
        raise ValueError(
            f"The message and details of the error are {size} bytes in the trailers of the call, and clients refuse "
            f"more than about {DETAILS_MAX_WIRE_BYTES}. Send less, or where the client finds the rest."
        )
    return data


def decode_details(trailers: Iterable[tuple[str, bytes]]) -> tuple[Message, ...]:
    """The details in the trailers of a call; none if there are none, or nothing readable.

    One whose type this process does not know stays a google.protobuf.Any.
    """
    data = next((value for key, value in trailers if key == DETAILS_KEY), b"")
    try:
        return tuple(_unpacked(each) for each in status_pb2.Status.FromString(data).details)
    except DecodeError:
        return ()


def _unpacked(packed: Any) -> Message:
    try:
        known = descriptor_pool.Default().FindMessageTypeByName(packed.TypeName())
        return message_factory.GetMessageClass(known).FromString(packed.value)
    except (KeyError, DecodeError):
        return packed
