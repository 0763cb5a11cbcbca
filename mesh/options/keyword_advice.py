"""Advice for misspelt keywords of the public functions and records, as there is for misspelt options in files."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import ParamSpec, TypeVar

from mesh.options.absent_options import why_unknown

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C", bound=type)
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def with_keyword_advice(function: Callable[P, T]) -> Callable[P, T]:
    """The function, whose TypeError for a keyword that it does not take says which it does.

    So does the one for a value that has to be given by name.
    """

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            # Only if the function itself did not begin: errors inside of it are not about its own keywords.
            if error.__traceback__ is not None and error.__traceback__.tb_next is None:
                _refuse_unknown(function, kwargs)
                _refuse_positional(function, args)
            raise

    return called


def with_field_advice(cls: C) -> C:
    """The record, with the same for the keywords of its constructor."""
    setattr(cls, "__init__", with_keyword_advice(vars(cls)["__init__"]))  # noqa: B010
    return cls


def unexpected_keyword(function: str, keyword: str, known: Iterable[str]) -> TypeError:
    """The error for a keyword that the function does not take."""
    why = why_unknown(keyword, known)
    advice = why.removeprefix("is unknown.") if why.startswith("is unknown.") else f" It {why}"
    return TypeError(f"{function}() got an unexpected keyword argument {keyword!r}.{advice}")


def _refuse_unknown(function: Callable[..., object], given: Iterable[str]) -> None:
    known = [name for name in inspect.signature(function).parameters if name != "self"]
    for keyword in given:
        if keyword not in known:
            name = function.__qualname__.removesuffix(".__init__")
            raise unexpected_keyword(name, keyword, (name for name in known if not name.startswith("_"))) from None


def _refuse_positional(function: Callable[..., object], args: Sequence[object]) -> None:
    parameters = inspect.signature(function).parameters.values()
    count = sum(each.kind in _BY_POSITION for each in parameters)
    named = [each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
    public = [name for name in named if not name.startswith("_")]
    if public and len(args) > count:
        example = f": write {public[0]}={args[count]!r}" if len(public) == 1 else ""
        raise TypeError(f"{function.__qualname__}() takes {', '.join(public)} by name{example}.") from None
