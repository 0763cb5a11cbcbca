"""Pickles of values with large bytes in them, made and read slice by slice: other threads run meanwhile.

`pickle.dumps` and `pickle.loads` keep the interpreter's lock until they are done. Picklers that write to a file hand
over large bytes uncopied, and unpicklers that read from one let it fill them; here the files are lists of buffers. The
pickle itself is the same, so either end may use either way.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from mesh.memory.sliced_copy import SLICE_BYTES, bytes_of, fill, view_of_copy

_SIZED = frozenset((bytes, bytearray, str))
_CONTAINERS = frozenset((tuple, list, dict))
_LOOKED_AT_MAX = 16
"""Containers, and items of each: whether the first ones are large says enough of the others."""
_FRAME_BYTES_MAX = 256 * 1024
"""More than a frame of a pickle has. What is written at once and is larger is the content of a value."""
_NEWLINE = ord("\n")


def holds_large(value: object) -> bool:
    """Whether `value` is larger than a slice, or a container with such a one among its first items."""
    kind = type(value)
    if kind in _SIZED:
        return len(value) > SLICE_BYTES  # type: ignore[arg-type]
    return kind in _CONTAINERS and _has_large_item(value)


def dumps(value: object, keep_in_band: Callable[[pickle.PickleBuffer], bool]) -> memoryview | None:
    """`value` as `pickle.dumps` writes it. None if that has the name `__main__` in it. Raises as that does."""
    writer = _Writer()
    pickle.Pickler(writer, 5, buffer_callback=keep_in_band).dump(value)
    if any(len(piece) < _FRAME_BYTES_MAX and b"__main__" in piece for piece in writer.pieces):
        return None
    return view_of_copy(writer.pieces)


def loads(data: bytes | memoryview, buffers: Iterable[Any] | None = None) -> Any:
    """Like `pickle.loads`."""
    if isinstance(data, bytes) or len(data) <= SLICE_BYTES:
        return pickle.loads(data, buffers=buffers)
    return pickle.Unpickler(_Reader(data), buffers=buffers).load()


def _has_large_item(container: Any) -> bool:
    containers = [container]
    for each in containers:  # those in it are appended meanwhile
        for item in _first_items(each):
            kind = type(item)
            if kind in _SIZED:
                if len(item) > SLICE_BYTES:
                    return True
            elif kind in _CONTAINERS and item and len(containers) < _LOOKED_AT_MAX:
                containers.append(item)
    return False


def _first_items(container: Any) -> Iterable[Any]:
    if type(container) is dict:
        return islice(container.values(), _LOOKED_AT_MAX)
    first: Iterable[Any] = container if len(container) <= _LOOKED_AT_MAX else container[:_LOOKED_AT_MAX]
    return first


class _Writer:
    """The file of a pickler. It keeps large bytes as they are."""

    __slots__ = ("pieces",)

    def __init__(self) -> None:
        self.pieces: list[bytes | bytearray | memoryview] = []

    def write(self, piece: bytes | bytearray) -> None:
        self.pieces.append(piece)


class _Reader:
    """The file of an unpickler."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._position = 0

    def read(self, size: int) -> bytes:
        return bytes_of(self._next(size))

    def readinto(self, target: Any) -> int:
        data = self._next(len(target))
        fill(memoryview(target), data)
        return len(data)

    def readline(self) -> bytes:
        end = self._position
        while end < len(self._data) and self._data[end] != _NEWLINE:
            end += 1
        return bytes(self._next(end + 1 - self._position))

    def _next(self, size: int) -> memoryview:
        data = self._data[self._position : self._position + size]
        self._position += len(data)
        return data
