"""Messages from JSON: a reader per message type, compiled from its descriptor at its first use.

A reader makes the arguments of the message's constructor, nested as the message is, so that one call in C builds all
of it. The types that proto3 JSON treats in a special way and that are rare are left to `google.protobuf.json_format`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from gateway.transcoding.field_error import FieldError, echoed
from gateway.transcoding.free_values import FREE_TYPES, read_free
from gateway.transcoding.json_scalars import SCALARS, Json, Reader, boolean_text, map_key_reader

WRAPPERS = frozenset(
    f"google.protobuf.{each}Value"
    for each in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
TEXT_TYPES: dict[str, tuple[re.Pattern[str], str]] = {
    "google.protobuf.Duration": (re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?s"), '"1.5s"'),
    "google.protobuf.FieldMask": (re.compile(r"[\s\S]*"), '"user.displayName,photo"'),
    "google.protobuf.Timestamp": (
        re.compile(r"[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})"),
        '"1972-01-01T10:00:20.021Z"',
    ),
}
"""Messages that are a string in JSON, with its form and an example; Python's readers of protobuf take more, such as
"1_0s" and digits of other alphabets."""
_ANY = "google.protobuf.Any"

_NULL_VALUE = "google.protobuf.NullValue"
_CLOSE_NAMES_MAX = 200
_PLACES_MAX_CHARS = 256 * 1024 * 1024
"""What json_format may write of the places of values, in about as many milliseconds as MiB, or less."""

Values = Any
"""Arguments of a message's constructor by field name, or the message itself."""


class FieldReader:
    """One field: what it is called, and what JSON gives for it."""

    __slots__ = ("inner", "is_repeated", "name", "oneof", "read", "read_text", "takes_null")

    def __init__(self, field: FieldDescriptor, readers: JsonReaders) -> None:
        self.name: str = field.name
        oneof = field.containing_oneof
        self.oneof: str = oneof.name if oneof is not None and len(oneof.fields) > 1 else ""
        is_map = is_map_field(field)
        kind = field.message_type
        is_object = kind is not None and not field.is_repeated and has_fields(kind)
        self.inner: ObjectReader | None = readers.of(kind) if kind is not None and is_object else None
        """The reader of a single message that is an object in JSON."""
        self.is_repeated: bool = field.is_repeated and not is_map
        element = _map_reader(field, readers) if is_map else readers.of_value(field)
        self.read: Reader = partial(_read_list, element, _takes_null(field)) if self.is_repeated else element
        """The whole field, from JSON."""
        self.takes_null = not field.is_repeated and _takes_null(field)
        self.read_text: Reader | None = None if is_map else _text_reader(field, element)
        """The field, or one element of it, from a path or query; None: it cannot be there."""


class ObjectReader:
    """One message type."""

    __slots__ = ("_descriptor", "_fields", "_readers", "message_class")

    def __init__(self, descriptor: Descriptor, readers: JsonReaders) -> None:
        self._descriptor = descriptor
        self._readers = readers
        self._fields: dict[str, FieldReader] | None = None
        self.message_class: type[Message] = GetMessageClass(descriptor)

    @property
    def fields(self) -> dict[str, FieldReader]:
        """By JSON name and by the name in the .proto."""
        if self._fields is None:
            by_field = [(field, FieldReader(field, self._readers)) for field in self._descriptor.fields]
            fields = {field.name: reader for field, reader in by_field}
            self._fields = fields | {field.json_name: reader for field, reader in by_field}
        return self._fields

    def read(self, tree: Json) -> dict[str, Values]:
        """The constructor's arguments. Raises FieldError."""
        if type(tree) is not dict:
            raise FieldError(f"expected an object, found {echoed(tree)}")
        fields = self._fields or self.fields
        values: dict[str, Values] = {}
        oneofs: dict[str, str] | None = None
        for key, value in tree.items():
            field = fields.get(key)
            if field is None:
                if self._readers.skips_unknown:
                    continue
                raise self.unknown(key)
            name = field.name
            if name in values:
                raise FieldError("is given in both spellings", key)
            if value is None and not field.takes_null:
                continue
            try:
                values[name] = field.read(value)
            except FieldError as error:
                raise error.within(key) from None
            if field.oneof:
                oneofs = oneofs or {}
                other = oneofs.setdefault(field.oneof, key)
                if other != key:
                    raise FieldError(f"is given beside {other}; of oneof {field.oneof} only one may be set", key)
        return values

    def unknown(self, key: str) -> FieldError:
        """The error for a field that the message does not have."""
        error = f"is not a field of {self._descriptor.full_name}"
        names = [field.json_name for field in self._descriptor.fields[:_CLOSE_NAMES_MAX]]
        near = get_close_matches(key, names, n=1) if len(key) <= 100 else []
        return FieldError(error + (f"; did you mean {near[0]}?" if near else ""), key if len(key) <= 100 else key[:100])


class JsonReaders:
    """The readers of all message types of a pool."""

    def __init__(self, pool: DescriptorPool, *, skips_unknown: bool = False) -> None:
        """`skips_unknown`: fields that a message does not have are not an error."""
        self._pool = pool
        self._readers: dict[str, ObjectReader] = {}
        self.skips_unknown = skips_unknown

    def of(self, descriptor: Descriptor) -> ObjectReader:
        """The reader of a message as an object."""
        reader = self._readers.get(descriptor.full_name)
        if reader is None:
            reader = self._readers[descriptor.full_name] = ObjectReader(descriptor, self)
        return reader

    def of_message(self, descriptor: Descriptor) -> Reader:
        """What makes the `Values` of a message, whatever its form in JSON is."""
        name = descriptor.full_name
        if name in WRAPPERS:
            value = self.of_value(descriptor.fields_by_name["value"])
            return lambda tree: {"value": value(tree)}
        if name in TEXT_TYPES:
            return partial(_read_text_type, GetMessageClass(descriptor))
        if name in FREE_TYPES:
            return partial(read_free, GetMessageClass(descriptor))
        if has_fields(descriptor):
            return self.of(descriptor).read
        return partial(self._read_any_form, GetMessageClass(descriptor))

    def of_value(self, field: FieldDescriptor) -> Reader:
        """The reader of one value of a field."""
        if field.message_type is not None:
            return self.of_message(field.message_type)
        if field.enum_type is not None:
            return _enum_reader(field.enum_type)
        return SCALARS[field.type][0]

    def _read_any_form(self, message_class: type[Message], tree: Json) -> Message:
        _check_places(tree)
        message = message_class()
        try:
            json_format.ParseDict(tree, message, ignore_unknown_fields=self.skips_unknown, descriptor_pool=self._pool)
        except (json_format.ParseError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise FieldError(str(error)) from None
        except KeyError as error:
            raise FieldError(f"{_ANY} lacks the key {error}, which its @type needs") from None
        return message


def has_fields(descriptor: Descriptor) -> bool:
    """Whether a message is an object in JSON, with a key for each field."""
    return takes_variables(descriptor) and not descriptor.is_extendable


def takes_variables(descriptor: Descriptor) -> bool:
    """Whether a path and a query can name its fields: also those of a message with extensions, which they cannot."""
    name = descriptor.full_name
    return not (name == _ANY or name in FREE_TYPES or name in TEXT_TYPES or name in WRAPPERS)


def built(message_class: type[Message], values: Values) -> Message:
    """The message of what a reader made."""
    return message_class(**values) if type(values) is dict else values


def is_map_field(field: FieldDescriptor) -> bool:
    kind = field.message_type
    return kind is not None and kind.has_options and bool(kind.GetOptions().map_entry)


def _check_places(tree: Json) -> None:
    """Refuse what json_format takes long for: it writes down the place of each value, which repeats all keys above."""
    written_chars = 0
    waiting: list[tuple[Json, int]] = [({"": tree}, 0)]
    while waiting:
        each, place_chars = waiting.pop()
        for key, value in each.items() if type(each) is dict else (("", value) for value in each):
            written_chars += place_chars + len(key)
            if type(value) in (dict, list):
                waiting.append((value, place_chars + len(key)))
        if written_chars > _PLACES_MAX_CHARS:
            raise FieldError("its keys are too long for as many values as are below them")


def _takes_null(field: FieldDescriptor) -> bool:
    kind, enum = field.message_type, field.enum_type
    if kind is not None:
        return bool(kind.full_name == "google.protobuf.Value")
    return enum is not None and enum.full_name == _NULL_VALUE


def _read_list(read: Reader, takes_null: bool, tree: Json) -> list[Values]:
    if type(tree) is not list:
        raise FieldError(f"expected an array, found {echoed(tree)}")
    values: list[Values] = []
    try:
        for value in tree:
            if value is None and not takes_null:
                raise FieldError("null is not an element")
            values.append(read(value))
    except FieldError as error:
        raise error.within(f"[{len(values)}]") from None
    return values


def _map_reader(field: FieldDescriptor, readers: JsonReaders) -> Reader:
    assert field.message_type is not None, "a map is a list of entry messages"
    entry = field.message_type.fields_by_name
    read_key, read_value = map_key_reader(entry["key"].type), readers.of_value(entry["value"])
    takes_null = _takes_null(entry["value"])
    kind = entry["value"].message_type
    build = (lambda values: values) if kind is None else partial(built, GetMessageClass(kind))

    def read(tree: Json) -> dict[Any, Values]:
        if type(tree) is not dict:
            raise FieldError(f"expected an object, found {echoed(tree)}")
        values: dict[Any, Values] = {}
        for key, value in tree.items():
            try:
                if value is None and not takes_null:
                    raise FieldError("null is not a value of a map")
                values[read_key(key)] = build(read_value(value))
            except FieldError as error:
                raise error.within(f"[{echoed(key)}]") from None
        return values

    return read


def _read_text_type(message_class: type[Any], tree: Json) -> Message:
    if type(tree) is not str:
        raise FieldError(f"expected a string, found {echoed(tree)}")
    message: Any = message_class()
    form, example = TEXT_TYPES[message.DESCRIPTOR.full_name]
    if not form.fullmatch(tree):
        raise FieldError(f"expected a {message.DESCRIPTOR.name}, such as {example}, found {echoed(tree)}")
    try:
        message.FromJsonString(tree)
    except ValueError as error:
        raise FieldError(str(error)) from None
    result: Message = message
    return result


def _enum_reader(enum: EnumDescriptor) -> Reader:
    if enum.full_name == _NULL_VALUE:
        return _read_null
    by_name = {value.name: value.number for value in enum.values}
    numbers = frozenset(by_name.values())
    is_closed = bool(enum.is_closed)
    read_number = SCALARS[FieldDescriptor.TYPE_INT32][0]

    def read(value: Json) -> int:
        number = by_name.get(value) if type(value) is str else None
        if number is not None:
            return number
        if type(value) is str and not value.lstrip("-").isdecimal():
            near = get_close_matches(value, list(by_name)[:_CLOSE_NAMES_MAX], n=1) if len(value) <= 100 else []
            advice = f"; did you mean {near[0]}?" if near else ""
            raise FieldError(f"{echoed(value)} is not a value of enum {enum.full_name}{advice}")
        number = read_number(value)
        if is_closed and number not in numbers:
            raise FieldError(f"{number} is not a value of enum {enum.full_name}")
        return int(number)

    return read


def _read_null(value: Json) -> int:
    if value is None or value == "NULL_VALUE" or value == 0:
        return 0
    raise FieldError(f"expected null, found {echoed(value)}")


def _text_reader(field: FieldDescriptor, read: Reader) -> Callable[[str], Values] | None:
    kind = field.message_type
    if kind is None:
        return boolean_text if field.type == FieldDescriptor.TYPE_BOOL else read
    if kind.full_name in TEXT_TYPES:
        return read
    if kind.full_name in WRAPPERS:
        if kind.fields_by_name["value"].type == FieldDescriptor.TYPE_BOOL:
            return lambda text: {"value": boolean_text(text)}
        return read
    return None
