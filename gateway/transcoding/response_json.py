"""The answer of a method as the body of an HTTP response: JSON, one field of the message, or a raw body."""

from __future__ import annotations

from typing import Any

import msgspec
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from gateway.transcoding.http_rules import TranscodingRule, is_raw
from gateway.transcoding.json_scalars import Writer
from gateway.transcoding.json_writer import JsonWriters

JSON_TYPE = "application/json"
RAW_TYPE = "application/octet-stream"

_encode = msgspec.json.Encoder().encode


class ResponseForm:
    """The responses of one rule."""

    __slots__ = ("_field", "_message_class", "_write", "is_raw")

    def __init__(self, method: MethodDescriptor, rule: TranscodingRule, writers: JsonWriters) -> None:
        self._message_class: type[Message] = GetMessageClass(method.output_type)
        self._field = rule.response_body
        if self._field:
            field = method.output_type.fields_by_name[self._field]
            self.is_raw: bool = not field.is_repeated and is_raw(field.message_type)
            self._write: Writer | None = writers.of_field(field)
        else:
            self.is_raw = is_raw(method.output_type)
            """Whether they are not JSON: a google.api.HttpBody."""
            self._write = writers.of_message(method.output_type)

    def json(self, message: bytes | memoryview) -> bytes:
        """The JSON of a serialised message. Raises ValueError for what JSON cannot hold, or a wrong message."""
        content = self._content(message)
        return _encode(content if self._write is None else self._write(content))

    def raw(self, message: bytes | memoryview) -> tuple[str, bytes]:
        """Content type and body. Raises ValueError for a wrong message."""
        content = self._content(message)
        content_type: str = content.content_type or RAW_TYPE
        if not content_type.isprintable():
            raise ValueError(f"its content type {content_type[:80]!r} is not one")
        return content_type, content.data

    def _content(self, message: bytes | memoryview) -> Any:
        parsed = self._message_class()
        try:
            parsed.ParseFromString(message)  # type: ignore[arg-type]
        except DecodeError as error:
            raise ValueError(f"the method's response is no {parsed.DESCRIPTOR.full_name}: {error}") from None
        return getattr(parsed, self._field) if self._field else parsed
