"""Fields to header blocks (RFC 7541) that never touch the dynamic table.

Such a block means the same on every connection and at any time. So the blocks of every response and the fixed part of
every request are made once, and blocks are put together by concatenation.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from mesh.http2.hpack_decoder import STATIC_TABLE, Field

TABLE_SIZE_ZERO = b"\x20"
"""Has to open the next block after the peer has reduced the table's size (RFC 7541 §4.2)."""

_INDEX_OF_FIELD = {field: index for index, field in enumerate(STATIC_TABLE) if field[1]}
_INDEX_OF_NAME = {field[0]: index for index, field in reversed(list(enumerate(STATIC_TABLE))) if index}


def encode_fields(fields: Iterable[Field]) -> bytes:
    """A header block, or a part of one."""
    return b"".join([encode_field(name, value) for name, value in fields])


def encode_field(name: bytes, value: bytes) -> bytes:
    """One field. `name` is in lower case."""
    index = _INDEX_OF_FIELD.get((name, value))
    if index is not None:
        return _integer(index, 0x7F, 0x80)
    return _name(name) + encode_string(value)


def encode_string(value: bytes) -> bytes:
    """§5.2, as it is: Huffman codes are read here and never written."""
    length = len(value)
    return (length.to_bytes(1, "big") if length < 0x7F else _integer(length, 0x7F, 0)) + value


@lru_cache(1024)
def _name(name: bytes) -> bytes:
    """The opening of a literal that is not to be kept."""
    index = _INDEX_OF_NAME.get(name)
    return _integer(index, 0x0F, 0) if index is not None else b"\0" + encode_string(name)


def _integer(value: int, mask: int, pattern: int) -> bytes:
    """§5.1, with the prefix in the bits of `mask` of the first byte and `pattern` in the others."""
    if value < mask:
        return bytes((pattern | value,))
    out = bytearray((pattern | mask,))
    value -= mask
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
