"""The checks that options share. Each error names the option and the expected value."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable

_NAME_MAX_CHARS = 16 * 1024

REPLICAS_MAX = 100_000
"""Limit of one deployment. The controller cannot plan more, now or after a restart."""


def whole_number(name: str, value: object, minimum: int, maximum: int | None = None) -> int:
    """Returns `value`. Raises TypeError unless it is an int, ValueError outside the range."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}.")
    if value < minimum or (maximum is not None and value > maximum):
        # Below the minimum, do not mention the upper limit.
        is_open = maximum is None or (value < minimum and maximum >= REPLICAS_MAX)
        expected = f"at least {minimum}" if is_open else f"between {minimum} and {maximum}"
        raise ValueError(f"{name} must be {expected}, got {_shown(value)}.")
    return value


def number(name: str, value: object, *, minimum: float = 0.0, may_equal: bool = True) -> float:
    """`value` as a float. Raises TypeError unless it is a number, ValueError below the minimum."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    if value > sys.float_info.max:
        raise ValueError(f"{name} must be a finite number, got one that is too large.")
    # Written so that NaN fails too.
    if not (value >= minimum if may_equal else value > minimum):
        expected = f"{'at least' if may_equal else 'more than'} {minimum:g}"
        raise ValueError(f"{name} must be {expected}, got {_shown(value)}.")
    return float(value)


def flag(name: str, value: object) -> None:
    """Raises TypeError for anything but True and False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}.")


def text(name: str, value: object) -> str:
    """Returns `value`. Raises TypeError unless it is a string."""
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
    """None, or any number of seconds: a deadline may have passed already, or be infinitely far away."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds or None, got {value!r}.")
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        raise ValueError(f"{name} must be a number of seconds or None, got one that is too large. None is no limit.")
    if math.isnan(value):
        raise ValueError(f"{name} must be a number of seconds or None, got NaN.")


def mapping(name: str, value: object) -> dict[str, object]:
    """Returns `value`. Raises TypeError unless it is a dict."""
    if not isinstance(value, dict):
        raise TypeError(f"{name} must be a dict, got {type(value).__name__}.")
    return value


def amounts(name: str, value: object) -> dict[str, float]:
    """Amounts by name of the resource. Raises TypeError or ValueError naming the one that is wrong."""
    found: dict[str, float] = {}
    for resource, amount in mapping(name, value).items():
        if not text(f"The name of a resource in {name}", resource):
            raise ValueError(f"{name} has a resource with an empty name.")
        found[resource] = number(f"{name}[{resource!r}]", amount)
    return found


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """A sentence to append to an error about an unknown name; empty if no known name is similar."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _shown(value: float) -> str:
    """A number in an error. Python refuses to write out integers of thousands of digits."""
    return f"{value}" if isinstance(value, float) or abs(value) <= sys.float_info.max else "one of hundreds of digits"
