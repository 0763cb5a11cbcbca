"""The two codecs of Connect: serialised Protobuf as it is, and its JSON form. Pure."""

from __future__ import annotations

from typing import Protocol

from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, EncodeError, Message

from mesh.rpc.message_reader import INTERNAL, MessageError

INVALID_ARGUMENT = 3


class MessageCodec(Protocol):
    """Between what the client has and the serialised messages that the mesh carries."""

    def decode(self, data: bytes) -> bytes:
        """A request message. Raises MessageError."""

    def encode(self, message: bytes | memoryview) -> bytes | memoryview:
        """A response message. Raises MessageError."""


class ProtoCodec:
    """Nothing to do."""

    def decode(self, data: bytes) -> bytes:
        return data

    def encode(self, message: bytes | memoryview) -> bytes | memoryview:
        return message


class JsonCodec:
    """The JSON form of the messages of one method. Fields that are not known are passed over, as Connect wants it."""

    def __init__(self, request: type[Message], response: type[Message], pool: DescriptorPool) -> None:
        """`pool` knows what an Any may hold."""
        self._request = request
        self._response = response
        self._pool = pool

    def decode(self, data: bytes) -> bytes:
        message = self._request()
        name = message.DESCRIPTOR.full_name
        if data.lstrip()[:1] == b"[" and not name.startswith("google.protobuf."):
            # The parser takes an empty list for an empty message.
            raise MessageError(INVALID_ARGUMENT, f"The request is a JSON list; {name} is an object.")
        try:
            json_format.Parse(data, message, ignore_unknown_fields=True, descriptor_pool=self._pool)
            return message.SerializeToString()
        # The JSON is a stranger's: besides its own error, the parser lets out those of numbers, UTF-8 and depth.
        except (json_format.Error, EncodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise MessageError(INVALID_ARGUMENT, f"The request is no JSON of {name}: {error}") from None

    def encode(self, message: bytes | memoryview) -> bytes:
        try:
            parsed = self._response.FromString(bytes(message))
            text = json_format.MessageToJson(parsed, indent=None, descriptor_pool=self._pool, ensure_ascii=False)
        except (json_format.Error, DecodeError, ValueError, TypeError) as error:
            name = self._response.DESCRIPTOR.full_name
            raise MessageError(INTERNAL, f"The response cannot be written as JSON of {name}: {error}") from None
        return text.encode("utf-8", "surrogatepass")


PROTO_CODEC = ProtoCodec()
