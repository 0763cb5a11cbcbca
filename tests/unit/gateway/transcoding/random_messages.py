"""Random messages of any type, with every kind of field that their descriptors have, for property tests."""

from __future__ import annotations

import math
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

_TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
_SIGNED32 = st.integers(-(2**31), 2**31 - 1)
_SIGNED64 = st.integers(-(2**63), 2**63 - 1)
_UNSIGNED32 = st.integers(0, 2**32 - 1)
_UNSIGNED64 = st.integers(0, 2**64 - 1)

_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_DOUBLE: st.floats(),
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.TYPE_INT32: _SIGNED32,
    FieldDescriptor.TYPE_SINT32: _SIGNED32,
    FieldDescriptor.TYPE_SFIXED32: _SIGNED32,
    FieldDescriptor.TYPE_INT64: _SIGNED64,
    FieldDescriptor.TYPE_SINT64: _SIGNED64,
    FieldDescriptor.TYPE_SFIXED64: _SIGNED64,
    FieldDescriptor.TYPE_UINT32: _UNSIGNED32,
    FieldDescriptor.TYPE_FIXED32: _UNSIGNED32,
    FieldDescriptor.TYPE_UINT64: _UNSIGNED64,
    FieldDescriptor.TYPE_FIXED64: _UNSIGNED64,
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_STRING: _TEXT,
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=6),
}

_TREES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_TEXT, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, depth: int = 2, fields_max: int = 6) -> Any:
    """A message with up to `fields_max` fields set, and messages in it `depth` deep."""
    message: Any = GetMessageClass(descriptor)()
    for field in draw(
        st.lists(st.sampled_from(list(descriptor.fields)), max_size=fields_max, unique_by=lambda f: f.number)
    ):
        _fill(draw, message, field, depth)
    return message


def _fill(draw: st.DrawFn, message: Any, field: FieldDescriptor, depth: int) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _fill_map(draw, getattr(message, field.name), field.message_type, depth)
    elif field.is_repeated:
        values = draw(st.lists(_values(field, depth), max_size=3))
        getattr(message, field.name).extend(values)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(draw(_values(field, depth)))
    else:
        setattr(message, field.name, draw(_values(field, depth)))


def _fill_map(draw: st.DrawFn, target: Any, entry: Descriptor, depth: int) -> None:
    key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
    for _ in range(draw(st.integers(0, 2))):
        name, item = draw(_values(key, 0)), draw(_values(value, depth))
        if value.message_type is None:
            target[name] = item
        else:
            target[name].CopyFrom(item)


def _values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.enum_type is not None:
        if field.enum_type.full_name == "google.protobuf.NullValue":
            return st.just(0)
        return st.sampled_from([value.number for value in field.enum_type.values]) | st.just(77)
    if field.message_type is None:
        return _SCALARS[field.type]
    return _well_known(field.message_type, depth)


def _well_known(descriptor: Descriptor, depth: int) -> st.SearchStrategy[Any]:
    cls: Any = GetMessageClass(descriptor)
    match descriptor.full_name:
        case "google.protobuf.Timestamp":
            seconds, nanos = st.integers(-62135596800, 253402300799), st.integers(0, 999_999_999)
            return st.builds(cls, seconds=seconds, nanos=nanos)
        case "google.protobuf.Duration":
            nanos = st.integers(-315_576_000_000 * 10**9, 315_576_000_000 * 10**9)
            return nanos.map(lambda ns: cls(seconds=int(math.copysign(abs(ns) // 10**9, ns)), nanos=_rest(ns)))
        case "google.protobuf.FieldMask":
            return st.lists(st.from_regex(r"[a-z]+(_[a-z]+)?(\.[a-z]+)?", fullmatch=True), max_size=2).map(
                lambda paths: cls(paths=paths)
            )
        case "google.protobuf.Any":
            return st.builds(_packed, st.just(cls), st.just(descriptor.file.pool), st.integers(0, 9))
        case "google.protobuf.Struct" | "google.protobuf.Value" | "google.protobuf.ListValue":
            return _free(descriptor, cls)
    return messages(descriptor, depth - 1, 3) if depth and descriptor.fields else st.builds(cls)


def _rest(nanos: int) -> int:
    return int(math.copysign(abs(nanos) % 10**9, nanos))


def _packed(cls: Any, pool: Any, number: int) -> Any:
    packed = cls()
    name = "google.protobuf.Duration" if number % 2 else "kinds.Place"
    content: Any = GetMessageClass(pool.FindMessageTypeByName(name))()
    if number % 2:
        content.seconds = number
    else:
        content.row = number
    packed.Pack(content)
    return packed


def _free(descriptor: Descriptor, cls: Any) -> st.SearchStrategy[Any]:
    trees: st.SearchStrategy[Any] = _TREES
    if descriptor.full_name == "google.protobuf.Struct":
        trees = st.dictionaries(_TEXT, _TREES, max_size=3)
    elif descriptor.full_name == "google.protobuf.ListValue":
        trees = st.lists(_TREES, max_size=3)
    return trees.map(lambda tree: json_format.ParseDict(tree, cls()))
