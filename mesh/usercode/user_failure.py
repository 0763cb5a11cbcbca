"""Exceptions of user code on their way to the controller: as text, never as the user's own exception.

Ray pickles exceptions and unpickles them in the calling process. That would run the user's code in the controller: an
import that does not succeed there, a constructor that takes other arguments, or worse.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from mesh.wire.outcome import as_utf8, describe

P = ParamSpec("P")
T = TypeVar("T")


class UserCodeError(Exception):
    """Its text is the class and the message of what was raised; its traceback and causes are those of that."""


PREFIX = f"{UserCodeError.__module__}.{UserCodeError.__qualname__}: "
"""What Python puts before the text when it prints one."""


def errors_as_text(method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """For methods of actors: whatever they raise arrives as UserCodeError."""

    @functools.wraps(method)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(*args, **kwargs)
        except GeneratorExit:
            raise
        except BaseException as error:  # Ray ends the actor for some, and says of others that it cancelled the call
            failure = _as_text(error)
        raise failure

    return guarded


def _as_text(error: BaseException) -> UserCodeError:
    lines = traceback.format_exception_only(error)
    if isinstance(error, SyntaxError):  # prints its place first
        lines = [describe(error)]
    failure = UserCodeError(as_utf8("".join(lines).strip()))
    # Ray sends the text of the traceback, causes and contexts included, and ends the process if it cannot encode that.
    if _is_unicode("".join(traceback.format_exception(error.__cause__ or error.__context__))):
        failure.__cause__, failure.__context__ = error.__cause__, error.__context__
        failure.__suppress_context__ = error.__suppress_context__
    if _is_unicode("".join(traceback.format_tb(error.__traceback__))):
        failure.__traceback__ = error.__traceback__
    return failure


def _is_unicode(text: str) -> bool:
    return text == as_utf8(text)
