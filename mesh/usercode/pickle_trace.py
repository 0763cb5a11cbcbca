"""The search for the part of a value that keeps the whole from being pickled."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator, Mapping

_DEPTH_MAX = 6
_PARTS_MAX = 100
"""Per value looked into; a large list is not searched to its end."""


def describe(
    value: object, can_be_pickled: Callable[[object], bool], labelled: Mapping[str, object] | None = None
) -> str:
    """Where the culprit sits, as the tail of a sentence; empty when the search finds no part to blame.

    `labelled`: the parts of the value, where they have names.
    """
    trace = find(value, can_be_pickled, labelled)
    return f" (found at: {' -> '.join(trace)})" if trace else ""


def find(
    value: object, can_be_pickled: Callable[[object], bool], labelled: Mapping[str, object] | None = None
) -> list[str]:
    """The way from `value` down to the smallest part that cannot be pickled."""
    trace: list[str] = []
    seen = {id(value)}
    while len(trace) < _DEPTH_MAX:
        parts = labelled.items() if labelled and not trace else _parts(value)
        try:
            bad = next(
                ((label, part) for label, part in parts if id(part) not in seen and not can_be_pickled(part)), None
            )
        except Exception:  # their `__dict__`, keys and variables are the user's, and may raise anything
            break
        if bad is None:
            break
        label, value = bad
        seen.add(id(value))
        trace.append(label)
    return trace


def _parts(value: object) -> Iterator[tuple[str, object]]:
    for number, part in enumerate(_all_parts(value)):
        if number == _PARTS_MAX:
            return
        yield part


def _all_parts(value: object) -> Iterator[tuple[str, object]]:
    match value:
        case Mapping():
            yield from ((f"[{key!r}]", part) for key, part in value.items())
        case list() | tuple() | set() | frozenset():
            yield from ((f"item {number}", part) for number, part in enumerate(value))
        case types.FunctionType():
            yield from _captured(value)
        case types.MethodType():
            yield "its object", value.__self__
        case type():
            yield from ((f"{value.__name__}.{name}", part) for name, part in vars(value).items() if _is_own(name))
        case _:
            attributes = getattr(value, "__dict__", {})
            yield from ((f"{type(value).__name__}.{name}", part) for name, part in attributes.items())


def _captured(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    """What a function drags along: the variables of its surroundings, and the globals that it names."""
    captured = inspect.getclosurevars(function)
    yield from ((f"variable {name!r} around {function.__name__}", part) for name, part in captured.nonlocals.items())
    yield from ((f"global {name!r} used by {function.__name__}", part) for name, part in captured.globals.items())


def _is_own(name: str) -> bool:
    """Attributes that Python itself adds to every class are never the cause."""
    return name not in ("__dict__", "__weakref__", "__module__", "__doc__", "__qualname__")
