"""JSON as clients send it, parsed within limits and without keys that are given twice. Pure.

Two readers of a body that has a key twice may see different values, as a proxy that checks it and the method do; so
protobuf's JSON for Python refuses it, and so do we. The parser does not show such keys, but what it made has fewer keys
than the text has colons then. Only such a text, which strings with colons make too, is read a second time.
"""

from __future__ import annotations

import json

import msgspec

from gateway.transcoding.field_error import FieldError
from gateway.transcoding.json_scalars import Json

NESTING_MAX = 100
"""Objects and arrays inside each other; protobuf itself refuses messages that are deeper."""
OBJECTS_MAX = 200_000
"""Objects and arrays of one body. Each takes hundreds of bytes, though it may be two characters; protobuf builds all of
them in one go, in which no other thread runs."""
VALUES_MAX = 4_000_000
"""The same for all values."""


_SPACE = b" \t\r\n"
_elements = msgspec.json.Decoder(list[msgspec.Raw])


def parse_json(text: bytes | bytearray | memoryview) -> Json:
    """Parse JSON. Raises FieldError that says at which byte it is wrong."""
    data = bytes(text) if isinstance(text, memoryview) else text
    if len(data) > OBJECTS_MAX:
        _check_count(data)
    try:
        tree = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise FieldError(f"the body is not JSON: {error}") from None
    except UnicodeDecodeError:
        raise FieldError("the body is not JSON: a string in it is not UTF-8") from None
    except RecursionError:
        raise _too_deep() from None
    objects = data.count(b"{")
    if objects + data.count(b"[") > NESTING_MAX:
        _check_depth(tree)
    colons = data.count(b":")
    if colons and not (type(tree) is dict and len(tree) == colons) and _keys_in(tree) < colons:
        _check_keys(data)
    return tree


def split_array(text: bytes | bytearray) -> list[bytes]:
    """The elements of an array, each as it is written; of anything else the whole text. Raises FieldError."""
    data = bytes(text)
    if not data.lstrip(_SPACE).startswith(b"["):
        return [data]
    try:
        return [bytes(element) for element in _elements.decode(data)]
    except msgspec.DecodeError as error:
        raise FieldError(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise _too_deep() from None


def _check_count(data: bytes | bytearray) -> None:
    """Characters in strings count too; very few bodies have as many of them."""
    objects = data.count(b"{") + data.count(b"[")
    if objects > OBJECTS_MAX or objects + data.count(b",") > VALUES_MAX:
        raise FieldError(
            f"the body has more than {OBJECTS_MAX} objects and arrays, or {VALUES_MAX} values: send several messages,"
            " or Protobuf"
        )


def _check_depth(tree: Json) -> None:
    level: list[Json] = [tree]
    for _ in range(NESTING_MAX):
        level = [
            inner
            for each in level
            if type(each) in (dict, list)
            for inner in (each.values() if type(each) is dict else each)
            if type(inner) in (dict, list)
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> FieldError:
    return FieldError(f"the body has more than {NESTING_MAX} objects and arrays inside each other")


def _keys_in(tree: Json) -> int:
    """The number of keys, or fewer: an array that begins with a plain value may have objects behind it."""
    found = 0
    waiting: list[Json] = [tree]
    for each in waiting:
        if type(each) is dict:
            found += len(each)
            waiting.extend(inner for inner in each.values() if type(inner) in (dict, list))
        elif each and type(each[0]) in (dict, list):
            waiting.extend(inner for inner in each if type(inner) in (dict, list))
    return found


def _check_keys(data: bytes | bytearray) -> None:
    try:
        _PAIRS_CHECKER.decode(data.decode())
    except RecursionError:
        raise _too_deep() from None


def _check_pairs(pairs: list[tuple[str, Json]]) -> None:
    if len(dict(pairs)) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise FieldError("is given twice in one object", key if len(key) <= 100 else key[:100])
            seen.add(key)


# Numbers stay text: whole ones would cost time that grows with the square of their length.
_PAIRS_CHECKER = json.JSONDecoder(object_pairs_hook=_check_pairs, parse_int=str, parse_float=str, strict=False)
