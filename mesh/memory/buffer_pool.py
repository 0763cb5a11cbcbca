"""`BufferPool`: buffers for large messages. One is used again when the last view of it is gone.

Fresh memory is expensive: the system fills each page with zeros when it is first written to, and a buffer that grows is
copied. Theory of operation: the memory is an anonymous mapping, of a power of two in size. Between it and the views
stands an object that lives as long as any view, also a view of a view; when that ends, the mapping is free again.

Garbage in a cycle is an exception: the collector says of all its objects that they end, and only then runs their
finalizers (`__del__`, the `finally` of a generator), which may read a view or keep it. So a mapping is asked once more
before it is used again.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import weakref
from collections import deque
from collections.abc import Iterator
from functools import cache

from mesh.settings import settings

_SMALLEST_BYTES = 128 * 1024


class BufferPool:
    """Any thread may take buffers and drop views."""

    def __init__(self, kept_max_bytes: int) -> None:
        """`kept_max_bytes`: free buffers beyond this are given back to the operating system."""
        self._kept_max_bytes = kept_max_bytes
        self._free = {size: deque[mmap.mmap]() for size in _sizes(kept_max_bytes)}
        """By size. Views end in any thread and during garbage collection, so nothing here may take a lock, and the
        sizes stay the same: they are iterated over."""

    def __repr__(self) -> str:
        return f"<BufferPool {self.kept_bytes} of {self._kept_max_bytes} bytes are free>"

    @property
    def kept_bytes(self) -> int:
        """Bytes of free buffers."""
        return sum(size * len(free) for size, free in self._free.items())

    def take(self, size: int) -> memoryview:
        """A writable buffer of exactly `size` bytes, which may be any bytes. It takes memory as far as it is written.

        It is free again when no view of it is left.
        """
        whole_size = _SMALLEST_BYTES
        while whole_size < size:
            whole_size *= 2
        if whole_size > self._kept_max_bytes:
            return memoryview(_new_mapping(max(size, 1)))[:size]
        mapping = self._take_free(whole_size) or _new_mapping(whole_size)
        lease = (ctypes.c_ubyte * whole_size).from_buffer(mapping)
        weakref.finalize(lease, self._give_back, mapping, whole_size).atexit = False
        return memoryview(lease).cast("B")[:size]

    def _take_free(self, size: int) -> mmap.mmap | None:
        free = self._free[size]
        while free:
            try:
                mapping = free.pop()
            except IndexError:  # another thread was faster
                return None
            if not _has_views(mapping, size):
                return mapping
        return None

    def _give_back(self, mapping: mmap.mmap, size: int) -> None:
        while self.kept_bytes + size > self._kept_max_bytes:
            if not self._drop_one_beside(size):
                return
        self._free[size].append(mapping)

    def _drop_one_beside(self, size: int) -> bool:
        """Give a free buffer of another size back to the system: messages of that size may never come again."""
        for other, free in self._free.items():
            if other != size and free:
                with contextlib.suppress(IndexError):
                    free.popleft()
                    return True
        return False


@cache
def buffer_pool() -> BufferPool:
    """That of this process."""
    return BufferPool(settings().payload.freed_bytes_kept)


def _sizes(most_bytes: int) -> Iterator[int]:
    size = _SMALLEST_BYTES
    while size <= most_bytes:
        yield size
        size *= 2


def _has_views(mapping: mmap.mmap, size: int) -> bool:
    """Whether views of it exist, as in a finalizer: a resize, here to the same size, is refused then."""
    try:
        mapping.resize(size)
    except BufferError:
        return True
    except SystemError:  # a system that cannot resize says so after it has looked for views
        pass
    return False


def _new_mapping(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
