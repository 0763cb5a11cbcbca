"""mesh.memory.sliced_copy: copies are equal to what they are made of, and no step copies more than a slice."""

import pytest

from mesh.memory.sliced_copy import SLICE_BYTES, bytes_of, fill, slices, view_of_copy

SIZES = (0, 1, SLICE_BYTES, SLICE_BYTES + 1, 3 * SLICE_BYTES - 1)


def some_bytes(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@pytest.mark.parametrize("size", SIZES)
def test_slices_cover_a_buffer_and_none_is_larger_than_a_slice(size: int) -> None:
    lengths = [len(range(size)[each]) for each in slices(size)]
    assert sum(lengths) == size
    assert all(0 < length <= SLICE_BYTES for length in lengths)


@pytest.mark.parametrize("size", SIZES)
def test_copies_are_equal(size: int) -> None:
    source = some_bytes(size)
    assert bytes_of(memoryview(source)) == source
    assert type(bytes_of(memoryview(source))) is bytes
    assert view_of_copy([source]) == source


def test_bytes_are_not_copied() -> None:
    source = some_bytes(2 * SLICE_BYTES)
    assert bytes_of(source) is source


def test_a_copy_of_pieces_is_joined_and_lasts_when_they_change() -> None:
    changing = bytearray(some_bytes(SLICE_BYTES + 7))
    before = bytes(changing)
    copy = view_of_copy([b"head", changing, memoryview(b"tail")])
    changing[:3] = b"new"
    assert bytes(copy) == b"head" + before + b"tail"
    assert copy.readonly


def test_fill_leaves_what_follows() -> None:
    target = bytearray(b"x" * (SLICE_BYTES + 10))
    fill(memoryview(target), some_bytes(SLICE_BYTES + 3))
    assert bytes(target) == some_bytes(SLICE_BYTES + 3) + b"x" * 7
