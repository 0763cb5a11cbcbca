"""Freed memory that was of no use for half a minute goes back to the system.

The C library keeps what was freed between blocks that live on, however much it is: after a gigabyte of requests a
gateway stayed a gigabyte larger, though none of it was in use. `allocator` says how much is worth keeping.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections import deque

_LOOK_INTERVAL_S = 10.0
"""Pause between two looks at what is free."""
_LOOKS = 3
"""This many in a row must find it: memory that calls use from time to time stays."""


class SurplusWatch:
    """Decides when to return memory. Pure."""

    def __init__(self, kept_bytes: int) -> None:
        """`kept_bytes`: what may stay free in the process."""
        self._kept_bytes = kept_bytes
        self._free_bytes: deque[int] = deque(maxlen=_LOOKS)

    def is_surplus(self, free_bytes: int) -> bool:
        """Whether to return memory now; to be called at each look, with what is free."""
        self._free_bytes.append(free_bytes)
        if len(self._free_bytes) < _LOOKS or min(self._free_bytes) <= 2 * self._kept_bytes:
            return False
        self._free_bytes.clear()
        return True


def return_surplus(kept_bytes: int) -> None:
    """Look again and again, in a thread of its own, for as long as the process lives. Only where the C library can."""
    if free_bytes() is not None:
        threading.Thread(target=_watch, args=(SurplusWatch(kept_bytes),), name="mesh-memory", daemon=True).start()


def free_bytes() -> int | None:
    """Bytes that the allocator holds and that are not in use; None where the C library does not say."""
    with contextlib.suppress(OSError, AttributeError):
        mallinfo = ctypes.CDLL(None).mallinfo2
        mallinfo.restype = _Mallinfo
        return int(mallinfo().free_bytes)
    return None


def return_memory() -> None:
    """Return every free page to the system. Threads that allocate meanwhile wait: 0.1 to 0.3 s for a gigabyte."""
    ctypes.CDLL(None).malloc_trim(0)


def _watch(watch: SurplusWatch) -> None:
    while True:
        time.sleep(_LOOK_INTERVAL_S)
        if watch.is_surplus(free_bytes() or 0):
            return_memory()


class _Mallinfo(ctypes.Structure):
    """`struct mallinfo2` of glibc 2.33 and newer."""

    _fields_ = (
        ("arena_bytes", ctypes.c_size_t),
        ("free_chunks", ctypes.c_size_t),
        ("fast_chunks", ctypes.c_size_t),
        ("mapped_chunks", ctypes.c_size_t),
        ("mapped_bytes", ctypes.c_size_t),
        ("unused", ctypes.c_size_t),
        ("fast_bytes", ctypes.c_size_t),
        ("used_bytes", ctypes.c_size_t),
        ("free_bytes", ctypes.c_size_t),
        ("top_bytes", ctypes.c_size_t),
    )
