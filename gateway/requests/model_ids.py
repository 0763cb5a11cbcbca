"""The multiplexed model that a request names in its message or its path, where its method or application says. Pure.

Only the fields of the outer message are looked at, and nothing is copied but the id. A request that cannot be read so
has no id: it is still served, by any replica.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote

_FIELDS_MAX = 16
"""Fields that are searched for the id: serialisers write them by number, and names usually have low ones."""
_ID_MAX_BYTES = 512
"""A longer value is not taken for an id: it would travel with each call."""
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_PLACEHOLDER = "{}"


def model_id_of_message(message: bytes | memoryview, fields: Sequence[int]) -> str:
    """The values of these string fields, those that are not empty, joined by ":"; empty if they cannot be read."""
    found: dict[int, bytes] = {}
    position = 0
    last = max(fields)
    for _ in range(_FIELDS_MAX):
        if position >= len(message):
            break
        tag, position = _varint(message, position)
        if tag >> 3 > last:
            break
        size, position = _size(message, tag & 7, position)
        if size < 0 or position + size > len(message):
            return ""
        if tag & 7 == _LENGTH and tag >> 3 in fields:
            if size > _ID_MAX_BYTES:
                return ""
            found[tag >> 3] = bytes(message[position : position + size])
        position += size
    try:
        return ":".join(found[field].decode() for field in fields if found.get(field))
    except UnicodeDecodeError:
        return ""


def model_id_of_path(path: str, depth: int, templates: Sequence[str]) -> str:
    """The segments where the first fitting template has "{}", decoded and joined by ":"; empty if none fits.

    `path` is percent-encoded; its first `depth` segments are the route prefix. A template fits what begins like it.
    """
    segments = path.split("/")[depth + 1 :]
    for template in templates:
        wanted = template.split("/")
        if len(segments) >= len(wanted) and all(
            each in (_PLACEHOLDER, segment) for each, segment in zip(wanted, segments, strict=False)
        ):
            parts = [
                segment for each, segment in zip(wanted, segments, strict=False) if each == _PLACEHOLDER and segment
            ]
            found = ":".join(map(unquote, parts))
            return found if len(found) <= _ID_MAX_BYTES else ""
    return ""


def _size(message: bytes | memoryview, wire_type: int, position: int) -> tuple[int, int]:
    """The size of the value at `position`, and where it begins; negative for what is not a value."""
    if wire_type == _LENGTH:
        return _varint(message, position)
    if wire_type == _VARINT:
        return 0, _varint(message, position)[1]
    return {_FIXED64: 8, _FIXED32: 4}.get(wire_type, -1), position


def _varint(message: bytes | memoryview, position: int) -> tuple[int, int]:
    """The number, and what follows it; -1 where it is cut off."""
    value = shift = 0
    while position < len(message) and shift < 70:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    return -1, len(message)
