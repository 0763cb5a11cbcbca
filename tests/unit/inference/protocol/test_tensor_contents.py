"""Tensors as bytes and as typed contents: what goes out comes in as the same array."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from mesh.inference.protocol.datatypes import BF16, BYTES, DATATYPES, OutputError, TensorError, output_datatype
from mesh.inference.protocol.messages import InferTensorContents
from mesh.inference.protocol.tensor_contents import byte_array, read_raw, read_typed, write_raw, write_typed

NUMERIC = [each for each in DATATYPES.values() if each not in (BF16, BYTES)]
SHAPES = arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
Array = Any


@st.composite
def numeric(draw: st.DrawFn) -> Array:
    datatype = draw(st.sampled_from(NUMERIC))
    return draw(arrays_of.arrays(datatype.dtype, draw(SHAPES)))


@st.composite
def texts(draw: st.DrawFn) -> Array:
    shape = draw(SHAPES)
    count = int(np.prod(shape))
    return byte_array(draw(st.lists(st.binary(max_size=9), min_size=count, max_size=count))).reshape(shape)


def same(found: Array, sent: Array) -> bool:
    equal_nan = sent.dtype.kind == "f"
    return found.dtype == sent.dtype and np.array_equal(found, sent, equal_nan=equal_nan) and found.shape == sent.shape


@given(numeric() | texts(), st.integers(0, 7))
def test_raw_tensors_come_in_as_they_went_out_at_any_offset(array: Array, offset: int) -> None:
    datatype = output_datatype("y", array)
    message = bytes(offset) + bytes(write_raw("y", datatype, array))
    found = read_raw("x", datatype, array.shape, memoryview(message)[offset:])
    assert same(found, array)
    assert found.flags.aligned


@given(numeric() | texts())
def test_typed_tensors_come_in_as_they_went_out(array: Array) -> None:
    datatype = output_datatype("y", array)
    if not datatype.contents_field:
        return
    contents = InferTensorContents()
    write_typed("y", datatype, array, contents)
    assert same(read_typed("x", datatype, array.shape, contents), array)


@given(arrays_of.arrays(np.uint16, st.integers(0, 20)))
def test_every_bfloat16_comes_in_and_goes_out_as_it_is(bits: Array) -> None:
    found = read_raw("x", BF16, bits.shape, bits.tobytes())
    again = np.frombuffer(bytes(write_raw("y", BF16, found)), "<u2")
    assert same(read_raw("x", BF16, bits.shape, again.tobytes()), found)
    assert np.array_equal(again[~np.isnan(found)], bits[~np.isnan(found)])


def test_bfloat16_is_rounded_to_the_nearest_value() -> None:
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, np.inf, np.nan], np.float32)
    sent = read_raw("x", BF16, [6], bytes(write_raw("y", BF16, values)))
    assert sent.tolist()[:5] == [1.0, 1.0, 1 + 2**-6, 1 + 2**-7, np.inf]
    assert np.isnan(sent[5])


def test_an_aligned_input_is_a_view_and_an_output_is_one_too() -> None:
    array = np.arange(1000, dtype=np.float32)
    data = array.tobytes()
    view = read_raw("x", DATATYPES["FP32"], [10, 100], data)
    assert view.base is not None
    assert not view.flags.writeable
    assert np.shares_memory(np.frombuffer(data, np.float32), view)
    assert np.shares_memory(np.frombuffer(write_raw("y", DATATYPES["FP32"], array), np.uint8), array)


def test_outputs_may_be_of_any_layout() -> None:
    array = np.arange(12, dtype=">i4").reshape(3, 4).T
    datatype = output_datatype("y", array)
    assert read_raw("x", datatype, [4, 3], bytes(write_raw("y", datatype, array))).tolist() == array.tolist()


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "why"),
    [
        ("FP32", [2], b"1234567", "'x' has 7 bytes; FP32 of shape [2] has 8"),
        ("FP32", [-1], b"", "a size cannot be negative"),
        ("FP32", [1] * 33, b"1234", "33 dimensions"),
        ("FP32", [0, 2**62, 2**62], b"", "'x' has the shape"),
        ("BOOL", [2], b"\1\2", "bytes other than 0 and 1"),
        ("BYTES", [1], b"\5\0\0\0abc", "ends inside of element 0"),
        ("BYTES", [2], b"\1\0\0\0a", "other than the 2 elements"),
        ("BYTES", [1], b"\1\0\0\0ab", "other than the 1 elements"),
        ("BYTES", [10**18], b"", "other than the"),
    ],
)
def test_raw_bytes_that_do_not_fit_are_refused(datatype: str, shape: list[int], data: bytes, why: str) -> None:
    with pytest.raises(TensorError) as refusal:
        read_raw("x", DATATYPES[datatype], shape, data)
    assert why in str(refusal.value)


@given(st.sampled_from(list(DATATYPES.values())), st.lists(st.integers(-1, 2**63 - 1), max_size=3), st.binary())
def test_whatever_is_sent_is_a_tensor_or_refused(datatype: Any, shape: list[int], data: bytes) -> None:
    with contextlib.suppress(TensorError):
        assert list(read_raw("x", datatype, shape, data).shape) == shape


@pytest.mark.parametrize(
    ("datatype", "contents", "why"),
    [
        ("FP16", {}, "can only be sent as raw_input_contents"),
        ("BF16", {}, "can only be sent as raw_input_contents"),
        ("INT32", {"fp32_contents": [1.0]}, "its elements are in int_contents, not in fp32_contents"),
        ("INT8", {"int_contents": [128]}, "outside of its range"),
        ("UINT16", {"uint_contents": [65536]}, "outside of its range"),
        ("FP64", {"fp64_contents": [1, 2]}, "2 elements; its shape [1] has 1"),
    ],
)
def test_typed_contents_that_do_not_fit_are_refused(datatype: str, contents: dict[str, Any], why: str) -> None:
    with pytest.raises(TensorError) as refusal:
        read_typed("x", DATATYPES[datatype], [1], InferTensorContents(**contents))
    assert why in str(refusal.value)


def test_text_goes_out_as_bytes() -> None:
    for array in (np.array(["ä", "b"]), np.array(["ä", "b"], object), np.array(["ä".encode(), b"b"])):
        assert output_datatype("y", array) is BYTES
        assert bytes(write_raw("y", BYTES, array)) == b"\2\0\0\0\xc3\xa4\1\0\0\0b"
    with pytest.raises(OutputError, match="'y' has an element of type int"):
        write_raw("y", BYTES, np.array([1, b"b"], object))


def test_outputs_without_a_datatype_are_refused() -> None:
    with pytest.raises(OutputError, match="'y' is an array of complex128"):
        output_datatype("y", np.array([1j]))
    with pytest.raises(OutputError, match=r"declares FP32: return it as array.astype\('float32'\)"):
        output_datatype("y", np.array([1.0]), "FP32")
    assert output_datatype("y", np.array([1.0], np.float32), "BF16") is BF16
