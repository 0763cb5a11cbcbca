"""The JSON codec of Connect: between what the client has and the serialised messages that the mesh carries. Pure."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import msgspec
from google.protobuf.message import DecodeError, EncodeError

from gateway.requests.descriptors import Descriptors, MethodMessages
from gateway.transcoding.json_parser import parse_json
from gateway.transcoding.json_reader import JsonReaders, built
from gateway.transcoding.json_writer import JsonWriters
from mesh.rpc.message_reader import MessageError
from mesh.rpc.status_codes import INVALID_ARGUMENT

STREAMED_JSON_MAX_BYTES = 1024 * 1024
"""Size of one request message of a stream."""

_encode = msgspec.json.Encoder().encode


class JsonCodec:
    """The JSON form of the messages of one method. Fields that are not known are passed over, as Connect wants it."""

    __slots__ = ("_read", "_request", "_response", "_write")

    def __init__(self, messages: MethodMessages, readers: JsonReaders, writers: JsonWriters) -> None:
        self._request = messages.request
        self._response = messages.response
        self._read = readers.of_message(messages.descriptor.input_type)
        self._write = writers.of_message(messages.descriptor.output_type)

    def decode(self, data: bytes) -> bytes:
        """A request message. Raises MessageError."""
        try:
            return built(self._request, self._read(parse_json(data))).SerializeToString()
        # What a stranger's JSON holds is refused by the reader, else by protobuf itself.
        except (EncodeError, ValueError, TypeError) as error:
            name = self._request.DESCRIPTOR.full_name
            raise MessageError(INVALID_ARGUMENT, f"The request is not {name} as JSON: {error}") from None

    def encode(self, message: bytes | memoryview) -> bytes:
        """A response message. Raises ValueError for one that cannot be JSON."""
        parsed = self._response()
        try:
            parsed.ParseFromString(message)  # type: ignore[arg-type]
            return _encode(self._write(parsed))
        except (DecodeError, ValueError) as error:
            name = parsed.DESCRIPTOR.full_name
            raise ValueError(f"The response cannot be written as JSON of {name}: {error}") from None


class _ApplicationCodecs:
    """The JSON codecs of one version of an application."""

    def __init__(self, descriptors: Descriptors) -> None:
        self._readers = JsonReaders(descriptors.pool, skips_unknown=True)
        self._writers = JsonWriters(descriptors.pool)
        self._codecs: dict[str, JsonCodec] = {}

    def of(self, full_name: str, messages: MethodMessages) -> JsonCodec:
        codec = self._codecs.get(full_name)
        if codec is None:
            codec = self._codecs[full_name] = JsonCodec(messages, self._readers, self._writers)
        return codec


class JsonCodecs:
    """The JSON codecs of all methods, made at their first use. They last as long as the descriptors."""

    def __init__(self) -> None:
        self._applications: WeakKeyDictionary[Descriptors, _ApplicationCodecs] = WeakKeyDictionary()

    def of(self, descriptors: Descriptors, full_name: str) -> JsonCodec | None:
        """None for a method that has no descriptors."""
        messages = descriptors.method(full_name)
        if messages is None:
            return None
        application = self._applications.get(descriptors)
        if application is None:
            application = self._applications[descriptors] = _ApplicationCodecs(descriptors)
        return application.of(full_name, messages)
