"""The JSON text of what a plain deployment returns: plain values, numpy, pydantic and the like (item 114)."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Any


def json_text(value: object) -> bytes:
    """`value` as JSON. Raises TypeError naming the type that has no JSON form, ValueError for NaN and infinity."""
    try:
        return _ENCODER.encode(value).encode()
    except ValueError as error:
        if "Out of range float" not in str(error):
            raise
        raise ValueError(f"{error}: NaN and infinity have no JSON form. Return None in their place, or text.") from None


def _converted(value: Any) -> object:
    """A value that `json` does not know, in terms of values that it knows."""
    for kind, convert in _BY_TYPE.items():
        if isinstance(value, kind):
            return convert(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for method in _OWN_METHODS:
        own = getattr(value, method, None)
        if callable(own) and not isinstance(value, type):
            return own()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(
        f"A value of type {type(value).__qualname__} has no JSON form. Return str, bytes, a Starlette Response, or "
        "values that JSON has."
    )


_OWN_METHODS = ("model_dump", "dict", "tolist", "asdict")
"""Methods that make JSON values: of pydantic models (versions 2 and 1), numpy and tensors, and records."""

_BY_TYPE: dict[type | tuple[type, ...], Callable[[Any], object]] = {
    enum.Enum: lambda value: value.value,
    (datetime.datetime, datetime.date, datetime.time): lambda value: value.isoformat(),
    datetime.timedelta: lambda value: value.total_seconds(),
    decimal.Decimal: lambda value: int(value) if value == value.to_integral_value() else float(value),
    (uuid.UUID, PurePath): str,
    (bytes, bytearray, memoryview): lambda value: bytes(value).decode(),
}

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_converted)
