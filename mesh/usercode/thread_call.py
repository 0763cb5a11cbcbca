"""A call of user code in a thread, for event loops that wait for its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def thread_call(function: Callable[..., T], *args: Any) -> T:
    """What the function returns. A StopIteration becomes the cause of a RuntimeError, as in a coroutine.

    Before Python 3.12 no future of an event loop takes a StopIteration, and what waits for it would wait forever.
    """
    try:
        return function(*args)
    except StopIteration as error:
        raise RuntimeError(f"{getattr(function, '__qualname__', 'User code')} raised StopIteration") from error
