"""The codecs of user methods: how arguments and messages are read, and how items and results are written.

Handle calls carry pickles. Calls under a full gRPC name carry serialised protobuf messages, never a pickle.
"""

from __future__ import annotations

import inspect
from typing import Any

import grpc
from google.protobuf.message import Message

from mesh.exceptions import GrpcStatusError
from mesh.memory.sliced_copy import bytes_of
from mesh.usercode.served_methods import TypedMethod, response_type_of
from mesh.wire.payload import STREAM_PLACE, Payload, decode, encode, raw

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class PickleCodec:
    """Python values, for calls under a plain method name."""

    __slots__ = ()

    may_return_nothing = False

    def read_arguments(self, payload: Payload | None, requests: object) -> Arguments:
        """Positional and keyword arguments, with `requests` in the place of one. Raises what unpickling them raises."""
        args, kwargs = decode(payload) if payload is not None else ((), {})
        if requests is not None:
            args = tuple(requests if each is STREAM_PLACE else each for each in args)
            kwargs = {name: requests if each is STREAM_PLACE else each for name, each in kwargs.items()}
        return args, kwargs

    def read_message(self, payload: Payload) -> Any:
        """One message of a streamed request."""
        return decode(payload)

    def write_item(self, value: Any) -> Payload:
        """One message of a streamed response. Raises UnserializableError, PayloadTooLargeError."""
        return encode(value, "item", store=False)

    def write_result(self, value: Any) -> Payload:
        """The response of a unary call. Raises like `write_item`."""
        return encode(value, "result")


class ProtobufCodec:
    """Messages of one gRPC method, for calls under its full name."""

    __slots__ = ("_reads_views", "_response_class", "_response_type", "_typed")

    may_return_nothing = True
    """A method may set a status, or write its messages, through its gRPC context and return None."""

    def __init__(self, typed: TypedMethod) -> None:
        self._typed = typed
        self._reads_views = getattr(typed.request_deserializer, "reads_views", False)
        self._response_type = response_type_of(typed)
        """By the `.proto`; empty: unknown. The generated serialiser takes messages of any type."""
        self._response_class: type | None = None
        """The class of the last response that was of it."""

    def read_arguments(self, payload: Payload | None, requests: object) -> Arguments:
        """The request message, or `requests` if the request is streamed. Raises like `read_message`."""
        return ((self.read_message(payload or raw(b"")) if requests is None else requests),), {}

    def read_message(self, payload: Payload) -> Any:
        """One message of the request. One that cannot be parsed is the client's fault: raises INVALID_ARGUMENT."""
        data: Any = payload.data if self._reads_views else bytes_of(payload.data)
        deserializer = self._typed.request_deserializer
        try:
            return deserializer(data) if deserializer is not None else data
        except Exception as error:  # protobuf's DecodeError, or what a parser of another format raises
            details = f"The request message of {self._typed.full_name} cannot be parsed: {error}"
            raise GrpcStatusError(grpc.StatusCode.INVALID_ARGUMENT, details) from error

    def write_result(self, value: Any) -> Payload:
        """The response message. Raises TypeError for anything else."""
        typed = self._typed
        if type(value) is not self._response_class:
            self._check_type(value)
        try:
            data = typed.response_serializer(value) if typed.response_serializer is not None else value
            if not isinstance(data, bytes):
                raise TypeError("the message is not serialised")
        except Exception as error:  # the serialiser of a type that the value is not of
            what = "None" if value is None else f"a {type(value).__name__}"
            advice = f": {error}"
            if inspect.isawaitable(value):
                advice = ". Await it before it is returned."
            elif not isinstance(value, Message):
                advice = ". Return the message of the .proto."
            raise TypeError(
                f"'{typed.full_name}' answered with {what}, not with its response message{advice}"
            ) from error
        return raw(data)

    write_item = write_result

    def _check_type(self, value: Any) -> None:
        if not isinstance(value, Message):
            return  # the serialiser says what is wrong
        found, wanted = value.DESCRIPTOR.full_name, self._response_type
        if wanted and found != wanted:
            raise TypeError(
                f"'{self._typed.full_name}' answered with a {found}, not with its response message {wanted}."
            )
        self._response_class = type(value)


Codec = PickleCodec | ProtobufCodec
PICKLE_CODEC = PickleCodec()
