"""Integers of variable length, beside protobuf's own."""

import pytest
from google.protobuf.wrappers_pb2 import UInt64Value
from hypothesis import given
from hypothesis import strategies as st

from mesh.wire.varints import varint, varint_at


@given(st.integers(min_value=0, max_value=2**64 - 1), st.binary(max_size=3), st.binary(max_size=3))
def test_an_integer_is_written_as_protobuf_does_and_read_where_it_stands(
    number: int, before: bytes, after: bytes
) -> None:
    written = varint(number)
    assert written == UInt64Value(value=number).SerializeToString()[1:] or number == 0
    assert varint_at(before + written + after, len(before)) == (number, len(before) + len(written))


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_an_integer_that_is_cut_off_is_none(number: int) -> None:
    with pytest.raises(IndexError):
        varint_at(varint(number)[:-1], 0)


def test_an_integer_without_an_end_is_not_read_to_its_end() -> None:
    with pytest.raises(IndexError, match="ten bytes"):
        varint_at(b"\x80" * 1_000, 0)
    assert varint_at(b"\xff" * 9 + b"\x01", 0) == (2**64 - 1, 10)
