"""The methods of the user's object: where each runs, its codec, and where it takes a gRPC context."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from mesh.context import get_replica_context, in_replica
from mesh.exceptions import MeshException
from mesh.handle import DeploymentHandle
from mesh.options import option_checks
from mesh.replica.method_codecs import PICKLE_CODEC, Codec, ProtobufCodec
from mesh.usercode.served_methods import TypedMethod

CONTEXT_KEYWORD = "grpc_context"
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Kind(Enum):
    """Where a method runs."""

    ASYNC = "async"
    """`async def` functions and async generators: on the user loop."""
    THREAD = "thread"
    """Everything else: in a thread of the pool."""


@dataclass(frozen=True, slots=True)
class ContextParameter:
    """The parameter of a method that takes the gRPC context."""

    position: int
    """Its index among positional arguments; larger than any if it can be given only by keyword."""
    name: str = ""
    """Its keyword; empty if it can be given only by position."""

    def fill(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], context: object
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Add the context to the arguments, unless they already have a value for its parameter."""
        if len(args) == self.position and self.name not in kwargs:
            return (*args, context), kwargs
        if len(args) < self.position and self.name:
            kwargs.setdefault(self.name, context)
        return args, kwargs


@dataclass(frozen=True, slots=True)
class Method:
    """One callable method."""

    name: str
    function: Callable[..., Any]
    kind: Kind
    codec: Codec = PICKLE_CODEC
    context: ContextParameter | None = None
    """None: it takes no gRPC context."""


class MethodTable:
    """Methods of one user object by the name they are called by. Made in the context of its replica."""

    def __init__(self, target: object, typed: dict[str, TypedMethod]) -> None:
        self._target = target
        self._typed = typed
        self._typed_attributes = {method.attribute for method in typed.values()}
        self._methods: dict[str, Method] = {}
        self._replica = get_replica_context() if in_replica() else None

    def find(self, name: str) -> Method:
        """Raises MeshException naming the methods there are."""
        method = self._methods.get(name)
        if method is None:
            method = self._methods[name] = self._look_up(name)
        return method

    def _look_up(self, name: str) -> Method:
        typed = self._typed.get(name)
        attribute = typed.attribute if typed is not None else name
        function = self._function(attribute)
        if function is None:
            raise MeshException(self._why_missing(name))
        if attribute in self._typed_attributes:
            context = _context_parameter(function, must_be_required=typed is None)
        else:
            context = _named_context(function)
        codec = PICKLE_CODEC if typed is None else ProtobufCodec(typed)
        return Method(name, function, _kind(function), codec, context)

    def _function(self, attribute: str) -> Callable[..., Any] | None:
        if inspect.isfunction(self._target) or inspect.isbuiltin(self._target):
            return self._target if attribute == "__call__" else None
        if attribute.startswith("__") and attribute != "__call__":
            return None
        if attribute == "__call__" and not hasattr(type(self._target), "__call__"):  # noqa: B004
            return None
        found = getattr(self._target, attribute, None)
        return found if _is_method(found) else None

    def _why_missing(self, name: str) -> str:
        where = ""
        if self._replica is not None:
            where = f" in deployment '{self._replica.deployment}' of application '{self._replica.app_name}'"
        available = self._available()
        return (
            f"Tried to call a method '{name}' that does not exist{where}. Available methods: {available}."
            f"{option_checks.did_you_mean(name, available)}"
        )

    def _available(self) -> list[str]:
        if inspect.isfunction(self._target):
            return ["__call__"]
        names = {name for name in dir(self._target) if not name.startswith("_")}
        public = sorted(name for name in names if _looks_callable(self._target, name))
        return [*(["__call__"] if callable(self._target) else []), *public]


def _looks_callable(target: object, name: str) -> bool:
    """Does not run the user's code: properties may load models, or raise."""
    found = inspect.getattr_static(target, name, None)
    return _is_method(found) or isinstance(found, classmethod)


def _is_method(found: object) -> bool:
    """A handle can be called only to raise the advice not to."""
    return callable(found) and not isinstance(found, DeploymentHandle)


def _kind(function: Callable[..., Any]) -> Kind:
    plain = _unwrapped(function)
    if inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain):
        return Kind.ASYNC
    return Kind.THREAD


def _unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isfunction(function) or inspect.ismethod(function) or inspect.isbuiltin(function):
        return function
    call = getattr(type(function), "__call__", function)  # noqa: B004
    return call if inspect.isfunction(call) else function


def _named_context(function: Callable[..., Any]) -> ContextParameter | None:
    """The context parameter of a method that belongs to no gRPC service: a required one named `grpc_context`."""
    try:
        taker = inspect.signature(function).parameters.get(CONTEXT_KEYWORD)
    except (TypeError, ValueError):
        return None
    return None if taker is None else _context_parameter(function, must_be_required=True)


def _context_parameter(function: Callable[..., Any], must_be_required: bool) -> ContextParameter | None:
    """Where a method of a service takes its context: as `grpc_context`, or second, as gRPC users write it.

    `must_be_required`: a call of a handle passes only what it was given, so a default stays as it is.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None if must_be_required else ContextParameter(1)
    positional = [each for each in parameters.values() if each.kind in _POSITIONAL]
    taker = parameters.get(CONTEXT_KEYWORD) or (positional[1] if len(positional) > 1 else None)
    if taker is None:
        takes_rest = any(each.kind is each.VAR_POSITIONAL for each in parameters.values())
        return ContextParameter(1) if takes_rest and not must_be_required else None
    if must_be_required and taker.default is not taker.empty:
        return None
    position = positional.index(taker) if taker in positional else sys.maxsize
    return ContextParameter(position, "" if taker.kind is taker.POSITIONAL_ONLY else taker.name)
