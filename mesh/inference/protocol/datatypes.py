"""The datatypes of tensors, and what they are in numpy. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mesh.inference.protocol.numpy_module import load_numpy

if TYPE_CHECKING:
    import numpy as np
else:
    np = load_numpy()

Array = Any
"""A numpy.ndarray of any type and shape."""

DIMENSIONS_MAX = 32
"""Dimensions of a shape: as many as every version of numpy supports."""
_ECHO_MAX_CHARS = 100
"""A name that a client sent is cut to this length in messages."""


class TensorError(ValueError):
    """What a client sent, or asks for, is wrong; the text names the tensor."""


class OutputError(ValueError):
    """What the code of the model returned is wrong; the text names the output."""


@dataclass(frozen=True, slots=True)
class Datatype:
    """One datatype of the protocol."""

    name: str
    dtype: Any
    """The numpy dtype of its arrays, little-endian; float32 for BF16, which holds all its values."""
    item_bytes: int
    """Size of an element on the wire; 0 for BYTES."""
    contents_field: str
    """The field of InferTensorContents for its elements; empty if they must be sent raw."""


def _datatype(name: str, dtype: str, contents_field: str) -> Datatype:
    little = np.dtype(dtype).newbyteorder("<")
    return Datatype(name, little, little.itemsize, contents_field)


BYTES = Datatype("BYTES", np.dtype(object), 0, "bytes_contents")
BF16 = Datatype("BF16", np.dtype("<f4"), 2, "")
DATATYPES = {
    each.name: each
    for each in (
        _datatype("BOOL", "bool", "bool_contents"),
        _datatype("INT8", "int8", "int_contents"),
        _datatype("INT16", "int16", "int_contents"),
        _datatype("INT32", "int32", "int_contents"),
        _datatype("INT64", "int64", "int64_contents"),
        _datatype("UINT8", "uint8", "uint_contents"),
        _datatype("UINT16", "uint16", "uint_contents"),
        _datatype("UINT32", "uint32", "uint_contents"),
        _datatype("UINT64", "uint64", "uint64_contents"),
        _datatype("FP16", "float16", ""),
        _datatype("FP32", "float32", "fp32_contents"),
        _datatype("FP64", "float64", "fp64_contents"),
        BF16,
        BYTES,
    )
}
_BY_DTYPE = {(each.dtype.kind, each.item_bytes): each for each in DATATYPES.values() if each not in (BF16, BYTES)}


def find_datatype(tensor: str, name: str) -> Datatype:
    """The datatype called `name`, of an input of this name. Raises TensorError."""
    found = DATATYPES.get(name)
    if found is None:
        raise TensorError(
            f"Input {shown(tensor)} has the unknown datatype {shown(name)}. There are: {', '.join(DATATYPES)}."
        )
    return found


def count_elements(tensor: str, shape: Sequence[int]) -> int:
    """The number of elements of an input of this shape. Raises TensorError for what is not a shape."""
    if len(shape) > DIMENSIONS_MAX:
        raise TensorError(f"Input {shown(tensor)} has {len(shape)} dimensions; there may be {DIMENSIONS_MAX}.")
    count = 1
    for size in shape:
        if size < 0:
            raise TensorError(f"Input {shown(tensor)} has the shape {list(shape)}: a size cannot be negative.")
        count *= size
    return count


def shaped(tensor: str, array: Array, shape: Sequence[int]) -> Array:
    """An input with its shape, of which the number of elements is checked. Raises TensorError if numpy has no such."""
    try:
        return array.reshape(tuple(shape))
    except (ValueError, OverflowError) as error:  # [0, 2**62]
        raise TensorError(f"Input {shown(tensor)} has the shape {list(shape)}: {error}.") from None


def output_datatype(output: str, array: Array, declared: str = "") -> Datatype:
    """What an array of the user's is sent as. Raises OutputError if that is not what the model declares, or nothing."""
    dtype = array.dtype
    if dtype.kind in "OSU":
        found: Datatype | None = BYTES
    elif dtype.name == "bfloat16" or (declared == "BF16" and dtype.kind == "f" and dtype.itemsize == 4):
        found = BF16
    else:
        found = _BY_DTYPE.get((dtype.kind, dtype.itemsize))
    if found is None:
        raise OutputError(f"Output {output!r} is an array of {dtype}, for which the protocol has no datatype.")
    if declared and found.name != declared:
        wanted = DATATYPES[declared].dtype.name
        raise OutputError(
            f"Output {output!r} is {found.name}, and the model declares {declared}: return it as "
            f"array.astype({wanted!r}), or declare {found.name}."
        )
    return found


def shown(name: str) -> str:
    """A name from a client, for messages."""
    return repr(name if len(name) <= _ECHO_MAX_CHARS else name[:_ECHO_MAX_CHARS] + "…")
