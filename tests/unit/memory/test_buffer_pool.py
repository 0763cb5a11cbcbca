"""Buffers of large messages: used again as soon as nothing refers to them, and only then."""

from __future__ import annotations

import gc
import threading

from hypothesis import given
from hypothesis import strategies as st

from mesh.memory.buffer_pool import BufferPool

MIB = 1024 * 1024


@given(size=st.integers(0, 5 * MIB))
def test_a_buffer_has_the_size_that_was_asked_for(size: int) -> None:
    buffer = BufferPool(4 * MIB).take(size)
    assert len(buffer) == size
    assert buffer.format == "B"
    buffer[:] = b"x" * size
    assert buffer == b"x" * size


def test_a_buffer_is_used_again_when_its_last_view_is_gone() -> None:
    pool = BufferPool(64 * MIB)
    buffer = pool.take(3 * MIB)
    buffer[:4] = b"mine"
    section = buffer.toreadonly()[:4]
    del buffer
    assert pool.kept_bytes == 0
    other = pool.take(3 * MIB)
    other[:4] = b"this"
    assert section == b"mine"
    del section
    assert pool.kept_bytes == 4 * MIB
    again = pool.take(3 * MIB)
    assert again[:4] == b"mine", "the same memory"
    assert pool.kept_bytes == 0


def test_no_more_is_kept_than_allowed() -> None:
    pool = BufferPool(4 * MIB)
    buffers = [pool.take(MIB) for _ in range(10)]
    buffers.clear()
    assert pool.kept_bytes == 4 * MIB


def test_what_is_larger_than_all_that_may_be_kept_goes_back_to_the_system() -> None:
    pool = BufferPool(MIB)
    buffer = pool.take(MIB + 1)
    assert len(buffer) == MIB + 1
    del buffer
    assert pool.kept_bytes == 0


def test_any_thread_may_drop_the_last_view() -> None:
    pool = BufferPool(64 * MIB)

    def drop(buffers: list[memoryview]) -> None:
        buffers.clear()

    threads = [threading.Thread(target=drop, args=([pool.take(MIB) for _ in range(4)],)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    del thread, threads
    gc.collect()
    assert pool.kept_bytes == 32 * MIB
