"""Messages as JSON: a writer per message type, compiled from its descriptor at its first use.

Like `google.protobuf.json_format` it leaves out fields that have their default value and no presence. The types that
are rare and that proto3 JSON treats in a special way are left to json_format.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message

from gateway.transcoding.json_reader import TEXT_TYPES, WRAPPERS, has_fields, is_map_field
from gateway.transcoding.json_scalars import SCALARS, Json, Writer, map_key_writer


class ObjectWriter:
    """One message type."""

    __slots__ = ("_descriptor", "_fields", "_writers")

    def __init__(self, descriptor: Descriptor, writers: JsonWriters) -> None:
        self._descriptor = descriptor
        self._writers = writers
        self._fields: dict[int, tuple[str, Writer | None]] | None = None

    @property
    def fields(self) -> dict[int, tuple[str, Writer | None]]:
        """The JSON name and the writer of each field, by its number."""
        if self._fields is None:
            of_field = self._writers.of_field
            self._fields = {each.number: (each.json_name, of_field(each)) for each in self._descriptor.fields}
        return self._fields

    def write(self, message: Message) -> dict[str, Json]:
        fields = self._fields or self.fields
        tree: dict[str, Json] = {}
        for field, value in message.ListFields():
            name, write = fields[field.number]
            tree[name] = value if write is None else write(value)
        return tree


class JsonWriters:
    """The writers of all message types of a pool."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool
        self._writers: dict[str, ObjectWriter] = {}

    def of_message(self, descriptor: Descriptor) -> Writer:
        """What makes JSON of a message. Raises ValueError for what JSON cannot hold."""
        name = descriptor.full_name
        if name in WRAPPERS:
            write = self._of_value(descriptor.fields_by_name["value"])
            return (lambda message: message.value) if write is None else (lambda message: write(message.value))
        if name in TEXT_TYPES:
            return lambda message: message.ToJsonString()
        if not has_fields(descriptor):
            return self._write_any_form
        writer = self._writers.get(name)
        if writer is None:
            writer = self._writers[name] = ObjectWriter(descriptor, self)
        return writer.write

    def of_field(self, field: FieldDescriptor) -> Writer | None:
        """What makes JSON of the value of a field."""
        if field.message_type is not None and is_map_field(field):
            entry = field.message_type.fields_by_name
            return partial(_write_map, map_key_writer(entry["key"].type), self._of_value(entry["value"]))
        write = self._of_value(field)
        if not field.is_repeated:
            return write
        return list if write is None else partial(_write_list, write)

    def _of_value(self, field: FieldDescriptor) -> Writer | None:
        if field.message_type is not None:
            return self.of_message(field.message_type)
        if field.enum_type is not None:
            return _enum_writer(field.enum_type)
        return SCALARS[field.type][1]

    def _write_any_form(self, message: Message) -> Json:
        try:
            return json_format.MessageToDict(message, descriptor_pool=self._pool)
        except (json_format.Error, DecodeError, TypeError) as error:
            raise ValueError(str(error)) from None


def _write_list(write: Writer, values: Any) -> list[Json]:
    return [write(value) for value in values]


def _write_map(write_key: Writer | None, write: Writer | None, values: Any) -> dict[str, Json]:
    return {
        key if write_key is None else write_key(key): value if write is None else write(value)
        for key, value in values.items()
    }


def _enum_writer(enum: EnumDescriptor) -> Writer:
    if enum.full_name == "google.protobuf.NullValue":
        return lambda number: None
    names = {number: value.name for number, value in enum.values_by_number.items()}
    return lambda number: names.get(number, number)
