"""Tensors as bytes and as typed contents of messages, and as numpy arrays. Pure.

Inputs are views of the received bytes wherever these are aligned for their datatype, and copied once elsewhere:
compiled code may assume alignment, and crash without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mesh.inference.protocol.datatypes import (
    BF16,
    BYTES,
    Array,
    Datatype,
    OutputError,
    TensorError,
    count_elements,
    shaped,
    shown,
)
from mesh.inference.protocol.messages import InferTensorContents
from mesh.inference.protocol.numpy_module import load_numpy

if TYPE_CHECKING:
    import numpy as np
else:
    np = load_numpy()

Buffer = bytes | memoryview
_LENGTH_BYTES = 4
_NAN = 0x7FC0
"""NaN as bfloat16."""


def read_raw(name: str, datatype: Datatype, shape: Sequence[int], data: Buffer) -> Array:
    """The input `name` from raw bytes; BYTES as an array of bytes objects. Raises TensorError."""
    count = count_elements(name, shape)
    if datatype is BYTES:
        return shaped(name, byte_array(_elements(name, data, count)), shape)
    needed = count * datatype.item_bytes
    if len(data) != needed:
        raise TensorError(
            f"Input {shown(name)} has {len(data)} bytes; {datatype.name} of shape {list(shape)} has {needed}."
        )
    if datatype is BF16:
        return shaped(name, _from_bfloat16(np.frombuffer(data, "<u2") if count else np.empty(0, "<u2")), shape)
    array = np.frombuffer(data, datatype.dtype) if count else np.empty(0, datatype.dtype)
    if datatype.name == "BOOL" and count and array.view(np.uint8).max() > 1:
        raise TensorError(f"Input {shown(name)} is BOOL, and has bytes other than 0 and 1.")
    return shaped(name, array if array.flags.aligned else array.copy(), shape)


def read_typed(name: str, datatype: Datatype, shape: Sequence[int], contents: InferTensorContents) -> Array:
    """The input `name` from the contents field of its datatype. Raises TensorError."""
    count = count_elements(name, shape)
    field = datatype.contents_field
    if not field:
        raise TensorError(f"Input {shown(name)} is {datatype.name}, which can only be sent as raw_input_contents.")
    others = [each.name for each, _ in contents.ListFields() if each.name != field]
    if others:
        raise TensorError(
            f"Input {shown(name)} is {datatype.name}, so its elements are in {field}, not in {others[0]}."
        )
    values = getattr(contents, field)
    if len(values) != count:
        raise TensorError(f"Input {shown(name)} has {len(values)} elements; its shape {list(shape)} has {count}.")
    if datatype is BYTES:
        return shaped(name, byte_array(values), shape)
    is_int = datatype.dtype.kind in "iu"
    array = np.fromiter(values, np.int64 if is_int and datatype.name != "UINT64" else datatype.dtype, count)
    return shaped(name, narrowed(name, datatype, array) if is_int else array, shape)


def narrowed(name: str, datatype: Datatype, array: Array) -> Array:
    """An array of integers as that of an integer datatype. Raises TensorError for what does not fit."""
    limits = np.iinfo(datatype.dtype)
    if array.size and not limits.min <= int(array.min()) <= int(array.max()) <= limits.max:
        raise TensorError(f"Input {shown(name)} is {datatype.name}, and has elements that are outside of its range.")
    return array.astype(datatype.dtype, copy=False)


def write_raw(name: str, datatype: Datatype, array: Array) -> Buffer:
    """The output `name` as raw bytes, as a view of the array where that is possible. Raises OutputError."""
    if datatype is BYTES:
        return b"".join(
            part for each in output_bytes(name, array) for part in (len(each).to_bytes(_LENGTH_BYTES, "little"), each)
        )
    array = _to_bfloat16(array) if datatype is BF16 else array.astype(datatype.dtype, copy=False)
    if not array.size:
        return b""
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def write_typed(name: str, datatype: Datatype, array: Array, contents: InferTensorContents) -> None:
    """Fill the field of its datatype, which has one, with the elements. Raises OutputError."""
    values: Iterable[object] = output_bytes(name, array) if datatype is BYTES else array.reshape(-1).tolist()
    getattr(contents, datatype.contents_field).extend(values)


def byte_array(elements: Iterable[bytes]) -> Array:
    """An array of these bytes objects, of one dimension."""
    found = list(elements)
    array = np.empty(len(found), object)
    array[:] = found
    return array


def output_bytes(name: str, array: Array) -> list[bytes]:
    """The elements of an output that is BYTES; text as UTF-8. Raises OutputError."""
    found = []
    for each in array.reshape(-1).tolist():
        if isinstance(each, str):
            each = each.encode()
        if not isinstance(each, bytes):
            raise OutputError(f"Output {name!r} has an element of type {type(each).__name__}: BYTES has bytes or str.")
        found.append(each)
    return found


def _elements(name: str, data: Buffer, count: int) -> list[bytes]:
    """BYTES: each element behind its length."""
    found: list[bytes] = []
    position = 0
    while position < len(data) and len(found) < count:
        start = position + _LENGTH_BYTES
        position = start + int.from_bytes(data[position:start], "little")
        if position > len(data):
            raise TensorError(f"Input {shown(name)} ends inside of element {len(found)}.")
        found.append(bytes(data[start:position]))
    if len(found) != count or position != len(data):
        raise TensorError(f"Input {shown(name)} has other than the {count} elements of its shape.")
    return found


def _from_bfloat16(bits: Array) -> Array:
    return (bits.astype("<u4") << 16).view("<f4")


def _to_bfloat16(array: Array) -> Array:
    """The bits, rounded to the nearest value, of two the even one."""
    if array.dtype.itemsize == BF16.item_bytes:
        return array.view("<u2")
    bits = np.ascontiguousarray(array, "<f4").view("<u4")
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(array), _NAN, rounded).astype("<u2")
