"""Explicit finalisation of user objects: `__del__` runs when the mesh says so, and only once."""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import Any

from mesh.usercode.thread_call import thread_call

_finalized: set[int] = set()
"""Ids of living objects whose `__del__` has run; the guard takes an id out when the object itself dies."""


async def finalize(target: object, *, in_thread: bool = True) -> None:
    """Run `target.__del__`, if it has one: awaited if it is async, else in a thread or right here.

    Its exception passes through. Garbage collection will not run it again.
    """
    finalizer = getattr(type(target), "__del__", None)
    if finalizer is None:
        return
    original = getattr(finalizer, "_mesh_original", finalizer)
    try:
        if inspect.iscoroutinefunction(original):
            await original(target)
        elif in_thread:
            await asyncio.to_thread(thread_call, original, target)
        else:
            original(target)
    finally:
        if _guard(type(target)):
            _finalized.add(id(target))


def _guard(cls: type) -> bool:
    """Put a check in front of the `__del__` that `cls` has or inherits. False where the class cannot be changed.

    Python looks `__del__` up on the class, so an attribute of the object could not hide it. Finalisers of classes that
    cannot be changed are written in C and may run twice.
    """
    original = cls.__del__  # type: ignore[attr-defined]
    if hasattr(original, "_mesh_original"):
        return True

    @functools.wraps(original)
    def guarded(self: object) -> Any:
        if id(self) in _finalized:
            _finalized.discard(id(self))
            return None
        return original(self)

    guarded._mesh_original = original  # type: ignore[attr-defined]
    try:
        type.__setattr__(cls, "__del__", guarded)  # whatever its metaclass thinks of that
    except TypeError:
        return False
    return True
