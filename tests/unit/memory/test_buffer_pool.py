"""Buffers of large messages: used again as soon as nothing refers to them, and only then."""

from __future__ import annotations

import gc
import threading

import pytest
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


def test_a_view_that_a_finalizer_keeps_goes_on_showing_its_message() -> None:
    """The collector says that all objects of a cycle end before it runs their finalizers."""

    class Keeper:
        def __init__(self, view: memoryview) -> None:
            self.view = view
            self.itself = self

        def __del__(self) -> None:
            kept.append(self.view)

    kept: list[memoryview] = []
    pool = BufferPool(64 * MIB)
    first = pool.take(MIB)
    first[:5] = b"first"
    Keeper(first)
    del first
    gc.collect()
    second = pool.take(MIB)
    second[:5] = b"other"
    assert kept[0][:5] == b"first"


def test_a_finalizer_reads_its_own_message_while_another_takes_memory() -> None:
    class Reader:
        def __init__(self, view: memoryview) -> None:
            self.view = view
            self.itself = self

        def __del__(self) -> None:
            taken.append(pool.take(MIB))
            taken[-1][:5] = b"other"
            seen.append(bytes(self.view[:5]))

    taken: list[memoryview] = []
    seen: list[bytes] = []
    pool = BufferPool(64 * MIB)
    first = pool.take(MIB)
    first[:5] = b"first"
    Reader(first)
    del first
    gc.collect()
    assert seen == [b"first"]


def test_free_buffers_of_a_size_that_is_not_used_any_more_make_room_for_others() -> None:
    pool = BufferPool(4 * MIB)
    small = [pool.take(MIB // 4) for _ in range(16)]
    small.clear()
    assert pool.kept_bytes == 4 * MIB
    large = pool.take(3 * MIB)
    large[:4] = b"mine"
    del large
    assert pool.kept_bytes == 4 * MIB
    assert pool.take(3 * MIB)[:4] == b"mine", "the same memory"


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["take", "slice", "drop", "cycle", "collect"]), st.integers(0, 2**20)), max_size=60
    )
)
def test_what_is_kept_never_changes_whatever_is_taken_and_dropped(steps: list[tuple[str, int]]) -> None:
    pool = BufferPool(2 * MIB)
    kept: list[tuple[int, memoryview]] = []
    for number, (step, value) in enumerate(steps):
        match step:
            case "take":
                view = pool.take(value)
                view[:8] = b"%08d" % number if value >= 8 else bytes(len(view[:8]))
                view[-8:] = view[:8]
                if value >= 16:
                    kept.append((number, view.toreadonly()))
                del view
            case "slice" if kept:
                number_of, view = kept.pop(value % len(kept))
                kept.append((number_of, view[: max(16, value)]))
                del view
            case "drop" if kept:
                del kept[value % len(kept)]
            case "cycle" if kept:
                cycle: list[object] = [kept.pop(value % len(kept))]
                cycle.append(cycle)
                del cycle
            case "collect":
                gc.collect(0)
        assert all(bytes(view[:8]) == b"%08d" % number for number, view in kept)
        assert pool.kept_bytes <= 2 * MIB


@pytest.mark.parametrize("allocations", range(1, 30))
def test_a_buffer_may_end_while_the_free_ones_are_counted(allocations: int) -> None:
    """A garbage collection runs wherever something is allocated."""
    pool = BufferPool(8 * MIB)
    for size in (MIB, 2 * MIB):
        pool.take(size)
    thresholds = gc.get_threshold()
    gc.disable()
    cycle: list[object] = [pool.take(4 * MIB)]
    cycle.append(cycle)
    del cycle
    # Python keeps small tuples for later ones, whose allocation is then none.
    pairs = [(number, number) for number in range(10_000)]
    gc.set_threshold(gc.get_count()[0] + allocations)
    gc.enable()
    try:
        assert pool.kept_bytes in (3 * MIB, 7 * MIB)
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    assert (pool.kept_bytes, len(pairs)) == (7 * MIB, 10_000)
