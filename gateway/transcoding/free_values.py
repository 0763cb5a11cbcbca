"""Messages that are any JSON: `Value`, `Struct` and `ListValue`. Pure.

`google.protobuf.json_format` reads them too, but it writes down the place of each value, which repeats all keys above
it: a body of 16 MiB with one long key would take it hours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from gateway.transcoding.field_error import FieldError, echoed
from gateway.transcoding.json_scalars import Json


def read_free(message_class: type[Message], tree: Json) -> Message:
    """Raises FieldError."""
    message: Any = message_class()
    kinds, expected, fill = FREE_TYPES[message.DESCRIPTOR.full_name]
    if not isinstance(tree, kinds):
        raise FieldError(f"expected {expected}, found {echoed(tree)}")
    try:
        fill(message, tree)
    except OverflowError:
        raise FieldError("a number in it is too large for a double") from None
    result: Message = message
    return result


def _fill_value(message: Any, tree: Json) -> None:
    kind = type(tree)
    if kind is dict:
        _fill_struct(message.struct_value, tree)
    elif kind is list:
        _fill_list(message.list_value, tree)
    elif kind is str:
        message.string_value = tree
    elif kind is bool:
        message.bool_value = tree
    elif tree is None:
        message.null_value = 0
    else:
        message.number_value = tree


def _fill_struct(message: Any, tree: dict[str, Json]) -> None:
    # It is there though it may be empty.
    message.SetInParent()
    fields = message.fields
    for key, value in tree.items():
        _fill_value(fields[key], value)


def _fill_list(message: Any, tree: list[Json]) -> None:
    message.SetInParent()
    add = message.values.add
    for value in tree:
        _fill_value(add(), value)


FREE_TYPES: dict[str, tuple[type, str, Callable[[Any, Json], None]]] = {
    "google.protobuf.Value": (object, "any value", _fill_value),
    "google.protobuf.Struct": (dict, "an object", _fill_struct),
    "google.protobuf.ListValue": (list, "an array", _fill_list),
}
"""By name: what each is in Python and in words, and what fills it."""
