"""The protobuf messages of a gRPC method, for calls of handles under its full name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from mesh.exceptions import MeshException
from mesh.memory.sliced_copy import bytes_of
from mesh.wire.payload import Payload, raw

_METHODS_MAX = 1024


@dataclass(frozen=True, slots=True)
class TypedMessages:
    """How the messages of one method are written and read."""

    full_name: str
    """"/package.Service/Method"."""
    request_type: type[Message]
    from_string: Callable[[bytes], Any]
    streams_request: bool
    streams_response: bool

    def only_argument(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Raises TypeError for anything but one positional argument."""
        if len(args) != 1 or kwargs:
            what = "an iterable of its messages" if self.streams_request else f"one {self.request_type.__name__}"
            raise TypeError(f"'{self.full_name}' takes {what} and nothing else.")
        return args[0]

    def write(self, message: Any) -> Payload:
        """Raises TypeError for a message of another type, PayloadTooLargeError."""
        if not isinstance(message, self.request_type):
            wanted, found = self.request_type.__name__, type(message).__name__
            raise TypeError(f"'{self.full_name}' takes {wanted} messages, not {found}. Await responses first.")
        return raw(message.SerializeToString())

    def read(self, payload: Payload) -> Any:
        """The response message. Raises MeshException for bytes that are none."""
        try:
            return self.from_string(bytes_of(payload.data))
        except Exception as error:  # protobuf's DecodeError
            raise MeshException(f"The response of '{self.full_name}' cannot be parsed: {error}") from error


@lru_cache(_METHODS_MAX)
def messages_of(full_name: str) -> TypedMessages:
    """The messages of "/package.Service/Method". Raises MeshException if this process has not imported them."""
    service, _, name = full_name[1:].rpartition("/")
    try:
        method = descriptor_pool.Default().FindServiceByName(service).FindMethodByName(name)
    except KeyError:
        raise MeshException(
            f"The messages of '{full_name}' are not known in this process: import the module that protoc has made of "
            "the service's .proto file, whose name ends in _pb2, and check the name."
        ) from None
    return TypedMessages(
        full_name,
        message_factory.GetMessageClass(method.input_type),
        message_factory.GetMessageClass(method.output_type).FromString,
        method.client_streaming,
        method.server_streaming,
    )
