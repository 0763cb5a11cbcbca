"""The methods of the user's object: where each runs, its codec, and whether it takes a gRPC context."""

from __future__ import annotations

import functools
import inspect
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


class Kind(Enum):
    """Where a method runs."""

    ASYNC = "async"
    """`async def` functions and async generators: on the user loop."""
    THREAD = "thread"
    """Everything else: in a thread of the pool."""


@dataclass(frozen=True, slots=True)
class Method:
    """One callable method."""

    name: str
    function: Callable[..., Any]
    kind: Kind
    codec: Codec = PICKLE_CODEC
    context_position: int = -1
    """Index of the positional parameter that takes the gRPC context; -1: there is none."""
    has_context_keyword: bool = False


class MethodTable:
    """Methods of one user object by the name they are called by."""

    def __init__(self, target: object, typed: dict[str, TypedMethod]) -> None:
        self._target = target
        self._typed = typed
        self._typed_attributes = {method.attribute for method in typed.values()}
        self._methods: dict[str, Method] = {}

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
        position, has_keyword = -1, False
        if attribute in self._typed_attributes:
            position, has_keyword = _context_parameters(function)
        codec = PICKLE_CODEC if typed is None else ProtobufCodec(typed)
        return Method(name, function, _kind(function), codec, position, has_keyword)

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
        if in_replica():
            replica = get_replica_context()
            where = f" in deployment '{replica.deployment}' of application '{replica.app_name}'"
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


def _context_parameters(function: Callable[..., Any]) -> tuple[int, bool]:
    """Where a typed method takes its context: as gRPC users write it (second), or as a keyword."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return 1, False
    if CONTEXT_KEYWORD in parameters:
        return -1, True
    positional = [
        parameter
        for parameter in parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    takes_rest = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters.values())
    return (1 if len(positional) > 1 or takes_rest else -1), False
