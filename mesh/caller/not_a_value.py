"""Advice for code that takes a response for what the method returned, and has forgotten to await it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn


class NotAValue:
    """Refuses what only values can do. Comparing for equality, hashing and truth stay as they are for any object."""

    __slots__ = ()

    if not TYPE_CHECKING:  # for type checkers it is an error anyway

        def _refuse(self, *_: object) -> NoReturn:
            name = type(self).__name__
            raise TypeError(f"A {name} is not the value that the method returned: {self._to_get_it}.")

        __getitem__ = __int__ = __float__ = __index__ = _refuse
        __add__ = __sub__ = __mul__ = __truediv__ = __floordiv__ = __mod__ = __pow__ = _refuse
        __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rfloordiv__ = __rmod__ = __rpow__ = _refuse
        __lt__ = __le__ = __gt__ = __ge__ = _refuse
