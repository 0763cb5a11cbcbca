"""On which object a batched function is called, if it is a method. Pure."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from typing import Any

_USUAL_NAMES = ("self", "cls")


class BatchReceiver:
    """Tells the object of a call from its arguments.

    The decorator sees a function and no class: a method is known by the usual name of its first parameter, and
    whatever that is called, because the class of the first argument has it as one.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._signature = inspect.signature(function)
        parameters = list(self._signature.parameters.values())
        self._is_method = bool(parameters) and parameters[0].name in _USUAL_NAMES
        self._without_first = self._signature.replace(parameters=parameters[1:])
        self._is_method_of: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[object | None, inspect.BoundArguments]:
        """The object of the call, None for that of a function, and the other arguments. Raises TypeError."""
        if args and (self._is_method or self._is_called_on(args[0])):
            return args[0], self._without_first.bind(*args[1:], **kwargs)
        return None, self._signature.bind(*args, **kwargs)

    def _is_called_on(self, first: object) -> bool:
        if isinstance(first, type):
            return self._is_in(first, classmethods=True) or self._is_in(type(first))
        known = self._is_method_of.get(type(first))
        if known is None:
            known = self._is_method_of[type(first)] = self._is_in(type(first))
        return known

    def _is_in(self, cls: type, *, classmethods: bool = False) -> bool:
        """Whether the class has the function as a method, perhaps below other decorators."""
        return any(
            self._is_wrapped_in(value)
            for base in cls.__mro__
            for value in vars(base).values()
            if isinstance(value, classmethod) is classmethods
            and not isinstance(value, staticmethod)
            and hasattr(type(value), "__get__")
        )

    def _is_wrapped_in(self, value: object) -> bool:
        """Whether an attribute of a class is the function, or wraps it. Those of other kinds may answer anything."""
        try:
            return inspect.unwrap(value, stop=lambda each: each is self._function) is self._function  # type: ignore[arg-type]
        except Exception:
            return False
