"""Exceptions of user code on their way to the controller: as text, never as the user's own exception.

Ray pickles exceptions and unpickles them in the calling process. That would run the user's code in the controller: an
import that does not succeed there, a constructor that takes other arguments, or worse.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

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
        except (Exception, SystemExit) as error:  # a constructor that calls sys.exit() must not end its actor unsaid
            failure = _as_text(error)
        raise failure

    return guarded


def _as_text(error: BaseException) -> UserCodeError:
    lines = traceback.format_exception_only(error)
    if isinstance(error, SyntaxError):  # prints its place first
        lines = [f"{type(error).__name__}: {error}"]
    failure = UserCodeError(_as_unicode("".join(lines).strip()))
    if not _is_unicode("".join(traceback.format_exception(error.__cause__ or error.__context__))):
        return failure.with_traceback(error.__traceback__)  # Ray ends the process whose exception it cannot encode
    # Causes and contexts are not pickled: Ray sends the text of the traceback, which these complete.
    failure.__cause__, failure.__context__ = error.__cause__, error.__context__
    failure.__suppress_context__ = error.__suppress_context__
    return failure.with_traceback(error.__traceback__)


def short_text(error: BaseException, max_chars: int) -> str:
    """The class and the message of what user code raised, cut."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # __str__ is the user's
        text = type(error).__name__
    return _as_unicode(text[:max_chars])


def _as_unicode(text: str) -> str:
    """Names of files that are not in UTF-8 come as lone surrogates, which neither protobuf nor Ray can encode."""
    return text.encode(errors="backslashreplace").decode()


def _is_unicode(text: str) -> bool:
    return text == _as_unicode(text)
