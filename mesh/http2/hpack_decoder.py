"""`HeaderDecoder`: header blocks to fields (RFC 7541), each block that repeats itself decoded only once.

A client's header blocks are the same bytes for every call of a method once its first request has filled the dynamic
table. Such a block means the same as long as the table does not change. So what was made of a block is kept by its
bytes, and forgotten at the next insertion or change of size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Generic, TypeVar

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from mesh.http2.frame_format import ErrorCode, Http2Error

T = TypeVar("T")
Field = tuple[bytes, bytes]

TABLE_MAX_BYTES = 4_096
"""Size of the dynamic table: the default of the protocol, and we announce no other."""
FIELD_OVERHEAD_BYTES = 32

STATIC_TABLE: tuple[Field, ...] = (
    (b"", b""),
    *((bytes(name), bytes(value)) for name, value in HeaderTable.STATIC_TABLE),
)
"""By index, from 1."""
_STATIC_COUNT = len(STATIC_TABLE) - 1

_BLOCKS_KEPT = 64
_BLOCK_KEPT_BYTES_MAX = 512
_KEPT_BYTES_MAX = 64 * 1024
"""Size of all lists of these blocks. A block of a few bytes may refer to the largest entry of the table repeatedly."""
_INTEGER_SHIFT_MAX = 28
_LIST_FACTOR_MAX = 8
"""A header list this many times the limit is no longer a mistake, but an attack by decompression."""

_RESIZES_MAX = 2
"""Changes of the table's size that may open a block: to the smallest size since the block before, and to the last."""
_HUFFMAN_KEPT_BYTES_MAX = 64

_short_huffman = lru_cache(4096)(decode_huffman)
"""For names and usual values. Long strings are not kept: the cache belongs to all connections and outlives them."""


class HeaderDecoder(Generic[T]):
    """The receiving end of one connection's header compression."""

    __slots__ = (
        "_interpret",
        "_kept",
        "_kept_bytes",
        "_list_max_bytes",
        "_table",
        "_table_bytes",
        "_table_max_bytes",
        "cut_short",
        "list_bytes",
    )

    def __init__(self, interpret: Callable[[list[Field]], T], list_max_bytes: int) -> None:
        """`interpret` turns decoded fields into what `decode` returns; it is called once for blocks that repeat."""
        self._interpret = interpret
        self._list_max_bytes = list_max_bytes
        self._table: deque[Field] = deque()  # newest first
        self._table_bytes = 0
        self._table_max_bytes = TABLE_MAX_BYTES
        self._kept: dict[bytes, T] = {}
        self._kept_bytes = 0
        self.cut_short: list[Field] = []
        """The beginning of the last list that was too long."""
        self.list_bytes = 0
        """Size of the last list; 0 for one that takes no memory: it was known already, or is too long."""

    def decode(self, block: bytes) -> T | None:
        """What the block means; None where its list is too long. Raises Http2Error for a block that is broken."""
        kept = self._kept.get(block)
        if kept is not None:
            self.list_bytes = 0
            return kept
        try:
            fields, changes_table = self._read(block)
        except (IndexError, HPACKDecodingError):
            raise _broken("a header block that ends early or refers to nothing") from None
        meaning = None if fields is None else self._interpret(fields)
        if changes_table:
            self._forget_kept()
        elif meaning is not None and len(block) <= _BLOCK_KEPT_BYTES_MAX:
            if len(self._kept) >= _BLOCKS_KEPT or self._kept_bytes + self.list_bytes > _KEPT_BYTES_MAX:
                self._forget_kept()
            self._kept[block] = meaning
            self._kept_bytes += self.list_bytes
        return meaning

    def _read(self, block: bytes) -> tuple[list[Field] | None, bool]:
        """The fields, None for too many of them, and whether the block has changed the table."""
        fields: list[Field] = []
        list_bytes = resizes = 0
        changes_table = False
        position, end = 0, len(block)
        while position < end:
            first = block[position]
            if first & 0x80:  # §6.1: name and value from the table
                index, position = _integer(block, position, 0x7F)
                field = self._entry(index)
            elif first & 0xE0 == 0x20:  # §6.3: a new size of the table
                resizes += 1
                if list_bytes or resizes > _RESIZES_MAX:
                    raise _broken("a change of the table's size behind a field, or too many of them")
                size, position = _integer(block, position, 0x1F)
                self._resize(size)
                changes_table = True
                continue
            else:  # §6.2: a literal, to be kept (01) or not
                is_kept = bool(first & 0x40)
                index, position = _integer(block, position, 0x3F if is_kept else 0x0F)
                if index:
                    name = self._entry(index)[0]
                else:
                    name, position = _string(block, position)
                value, position = _string(block, position)
                field = (name, value)
                if is_kept:
                    self._insert(field)
                    changes_table = True
            list_bytes += len(field[0]) + len(field[1]) + FIELD_OVERHEAD_BYTES
            if list_bytes <= self._list_max_bytes:
                fields.append(field)
            elif list_bytes > self._list_max_bytes * _LIST_FACTOR_MAX:
                raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "header list too long")
        if list_bytes > self._list_max_bytes:
            self.cut_short, self.list_bytes = fields, 0
            return None, changes_table
        self.list_bytes = list_bytes
        return fields, changes_table

    def _forget_kept(self) -> None:
        self._kept.clear()
        self._kept_bytes = 0

    def _entry(self, index: int) -> Field:
        if index <= _STATIC_COUNT:
            if not index:
                raise _broken("index 0")
            return STATIC_TABLE[index]
        return self._table[index - _STATIC_COUNT - 1]

    def _insert(self, field: Field) -> None:
        size = len(field[0]) + len(field[1]) + FIELD_OVERHEAD_BYTES
        self._evict(self._table_max_bytes - size)
        if size <= self._table_max_bytes:
            self._table.appendleft(field)
            self._table_bytes += size

    def _resize(self, size: int) -> None:
        if size > TABLE_MAX_BYTES:
            raise _broken(f"a table of {size} bytes, {TABLE_MAX_BYTES} are allowed")
        self._table_max_bytes = size
        self._evict(size)

    def _evict(self, room: int) -> None:
        while self._table and self._table_bytes > room:
            name, value = self._table.pop()
            self._table_bytes -= len(name) + len(value) + FIELD_OVERHEAD_BYTES


def _broken(text: str) -> Http2Error:
    return Http2Error(ErrorCode.COMPRESSION_ERROR, text)


def _integer(data: bytes, position: int, mask: int) -> tuple[int, int]:
    """§5.1: the integer whose prefix is in the bits of `mask` of the byte at `position`, and the position behind it."""
    value = data[position] & mask
    position += 1
    if value < mask:
        return value, position
    shift = 0
    while True:
        byte = data[position]
        position += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > _INTEGER_SHIFT_MAX:
            raise _broken("an integer that is too long")


def _string(data: bytes, position: int) -> tuple[bytes, int]:
    """§5.2: the string at `position`, and the position behind it."""
    is_huffman = data[position] & 0x80
    length, position = _integer(data, position, 0x7F)
    end = position + length
    if end > len(data):
        raise _broken("a string that is longer than its header block")
    value = data[position:end]
    if not is_huffman:
        return value, end
    return (_short_huffman(value) if length <= _HUFFMAN_KEPT_BYTES_MAX else decode_huffman(value)), end
