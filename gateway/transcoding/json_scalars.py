"""Scalar fields in proto3 JSON, both ways.

Readers take what a JSON parser made and raise FieldError; writers make what a JSON encoder takes, which writes `bytes`
as base64. None as a writer: the value as it is.
"""

from __future__ import annotations

import math
import re
import struct
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from gateway.transcoding.field_error import FieldError, echoed

Json = Any
"""What a JSON parser makes: dict, list, str, int, float, bool or None."""
Reader = Callable[[Json], Any]
Writer = Callable[[Any], Json]

_INTEGER = re.compile(r"-?[0-9]{1,40}(\.0{1,40})?", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
_NUMBER_MAX_CHARS = 400
_SPECIAL_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_FLOAT32_MAX = 3.4028234663852886e38
_FLOAT32 = struct.Struct("<f")


def _integer(least: int, most: int) -> Reader:
    def read(value: Json) -> int:
        if type(value) is not int:
            value = _whole_number(value)
        if not least <= value <= most:
            raise FieldError(f"{echoed(value)} is not between {least} and {most}")
        number: int = value
        return number

    return read


def _whole_number(value: Json) -> int:
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value.partition(".")[0])
    if isinstance(value, str) and len(value) <= _NUMBER_MAX_CHARS and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise FieldError(f"expected an integer, found {echoed(value)}")


def _double(value: Json) -> float:
    if type(value) is float:
        return value
    if isinstance(value, str):
        special = _SPECIAL_FLOATS.get(value)
        if special is not None:
            return special
        if len(value) > _NUMBER_MAX_CHARS or not _NUMBER.fullmatch(value):
            raise FieldError(f"expected a number, found {echoed(value)}")
    elif type(value) is not int:
        raise FieldError(f"expected a number, found {echoed(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isinf(number):
        raise FieldError(f"{echoed(value)} is too large for a double")
    return number


def _float(value: Json) -> float:
    number = _double(value)
    if abs(number) > _FLOAT32_MAX and not math.isinf(number):
        if abs(number) >= 3.4028235677973366e38:  # rounds to infinity
            raise FieldError(f"{echoed(value)} is too large for a float")
        number = math.copysign(_FLOAT32_MAX, number)
    return number


def _boolean(value: Json) -> bool:
    if type(value) is bool:
        return value
    raise FieldError(f"expected true or false, found {echoed(value)}")


def _string(value: Json) -> str:
    if type(value) is str:
        return value
    raise FieldError(f"expected a string, found {echoed(value)}")


def _bytes(value: Json) -> bytes:
    if type(value) is not str:
        raise FieldError(f"expected a base64 string, found {echoed(value)}")
    if "-" in value or "_" in value:
        value = value.replace("-", "+").replace("_", "/")
    try:
        return a2b_base64(value.rstrip("=") + "=" * (-len(value.rstrip("=")) % 4), strict_mode=True)
    except (Base64Error, ValueError):
        raise FieldError(f"expected base64, found {echoed(value)}") from None


def boolean_text(text: str) -> bool:
    """A bool field in a path or query."""
    if text in ("true", "false"):
        return text == "true"
    raise FieldError(f"expected true or false, found {echoed(text)}")


def write_double(value: float) -> Json:
    if math.isfinite(value):
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def write_float(value: float) -> Json:
    """The shortest text from which the same float comes back."""
    if not math.isfinite(value):
        return write_double(value)
    for digits in (6, 7, 8):
        short = float(f"{value:.{digits}g}")
        if _FLOAT32.unpack(_FLOAT32.pack(short))[0] == value:
            return short
    return float(f"{value:.9g}")


_INT32 = _integer(-(2**31), 2**31 - 1)
_INT64 = _integer(-(2**63), 2**63 - 1)
_UINT32 = _integer(0, 2**32 - 1)
_UINT64 = _integer(0, 2**64 - 1)

SCALARS: dict[int, tuple[Reader, Writer | None]] = {
    FieldDescriptor.TYPE_INT32: (_INT32, None),
    FieldDescriptor.TYPE_SINT32: (_INT32, None),
    FieldDescriptor.TYPE_SFIXED32: (_INT32, None),
    FieldDescriptor.TYPE_UINT32: (_UINT32, None),
    FieldDescriptor.TYPE_FIXED32: (_UINT32, None),
    FieldDescriptor.TYPE_INT64: (_INT64, str),
    FieldDescriptor.TYPE_SINT64: (_INT64, str),
    FieldDescriptor.TYPE_SFIXED64: (_INT64, str),
    FieldDescriptor.TYPE_UINT64: (_UINT64, str),
    FieldDescriptor.TYPE_FIXED64: (_UINT64, str),
    FieldDescriptor.TYPE_DOUBLE: (_double, write_double),
    FieldDescriptor.TYPE_FLOAT: (_float, write_float),
    FieldDescriptor.TYPE_BOOL: (_boolean, None),
    FieldDescriptor.TYPE_STRING: (_string, None),
    FieldDescriptor.TYPE_BYTES: (_bytes, None),
}
"""The reader and the writer of each scalar type."""


def map_key_reader(kind: int) -> Reader:
    """Keys of JSON objects are strings, whatever the type of the map's keys."""
    return boolean_text if kind == FieldDescriptor.TYPE_BOOL else SCALARS[kind][0]


def map_key_writer(kind: int) -> Writer | None:
    """None: strings as they are."""
    if kind == FieldDescriptor.TYPE_STRING:
        return None
    return _boolean_key if kind == FieldDescriptor.TYPE_BOOL else str


def _boolean_key(value: bool) -> str:
    return "true" if value else "false"
