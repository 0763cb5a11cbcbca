"""Owns the small checks that options share; each names the option and what it expects."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable

_INSTEAD = {
    "logging_config": "a constructor can configure Python's logging for its replica",
    "_local_testing_mode": "mesh.run() starts a Ray on this machine where none is running",
    "http_options['request_timeout_s']": "grpc_options has one",
}
"""What to do without an option, where something can be done."""

_NAME_MAX_CHARS = 16 * 1024

REPLICAS_MAX = 100_000
"""Of one deployment: what is planned for more would not fit into the controller, now or after any restart."""


def whole_number(name: str, value: object, minimum: int, maximum: int | None = None) -> int:
    """`value` as it came. Raises TypeError unless it is an int, ValueError outside the range."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}.")
    if value < minimum or (maximum is not None and value > maximum):
        # What the wire can hold is of no interest to who asks for too little.
        is_open = maximum is None or (value < minimum and maximum >= REPLICAS_MAX)
        expected = f"at least {minimum}" if is_open else f"between {minimum} and {maximum}"
        raise ValueError(f"{name} must be {expected}, got {value}.")
    return value


def number(name: str, value: object, *, minimum: float = 0.0, may_equal: bool = True) -> float:
    """`value` as a float. Raises TypeError unless it is a number, ValueError below the minimum."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    if value > sys.float_info.max:
        raise ValueError(f"{name} must be a finite number, got one that is too large.")
    # Written so that NaN fails too.
    if not (value >= minimum if may_equal else value > minimum):
        raise ValueError(f"{name} must be {'at least' if may_equal else 'more than'} {minimum:g}, got {value}.")
    return float(value)


def text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {value!r}.")
    return value


def name_text(name: str, value: object) -> str:
    """A name that is sent with calls and labels metrics. Raises TypeError, or ValueError if too long or not UTF-8.

    Checked where it is given, because it would fail far from there.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {value!r}.")
    if len(value) > _NAME_MAX_CHARS:
        raise ValueError(f"{name} must have at most {_NAME_MAX_CHARS} characters, got {len(value)}.")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"{name} must be text that UTF-8 can encode, got {value!r}.")
    return value


def seconds(name: str, value: object) -> None:
    """None, or any number of seconds: a deadline may have passed already."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds or None, got {value!r}.")
    if math.isnan(value):
        raise ValueError(f"{name} must be a number of seconds or None, got NaN.")


def mapping(name: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"{name} must be a dict, got {type(value).__name__}.")
    return value


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence to put behind an error about a name that is not known; empty where no known one is like it."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def not_yet(name: str) -> ValueError:
    """For options of the contract that this version cannot honour: accepting them silently would be a lie."""
    return ValueError(f"{name} {why_not_yet(name)}")


def why_not_yet(name: str) -> str:
    instead = f": {_INSTEAD[name]}" if name in _INSTEAD else ""
    return f"is not available in this version of the mesh yet. Leave it out{instead}."
