"""The gRPC methods that a class serves.

Generated code offers only one way to ask: its `add_XServicer_to_server(servicer, server)` takes the methods off a
servicer and registers them with a server. Both are stood in for here: a servicer that answers every attribute with a
mark, and a server that keeps what is registered. So it needs neither an instance of the user's class nor a port.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import Message

AddFunction = Callable[[Any, Any], Any]


@dataclass(frozen=True, slots=True)
class TypedMethod:
    full_name: str
    """"/package.Service/Method"."""
    attribute: str
    """Name of the method on the user's class."""
    streams_request: bool
    streams_response: bool
    request_deserializer: Callable[[bytes], Any] | None
    response_serializer: Callable[[Any], bytes] | None
    is_idempotent: bool
    """By its `idempotency_level`: a call may be executed twice."""


def typed_methods(
    served_by: Callable[..., Any], add_functions: Iterable[str | AddFunction] = ()
) -> dict[str, TypedMethod]:
    """The methods by full name: of the class's generated bases, and of `add_functions` as far as the class has them.

    Methods that a base declares and the class does not write itself are left out: they only answer UNIMPLEMENTED.
    A function serves none.
    """
    if not inspect.isclass(served_by):
        return {}
    inherited = [add for base in served_by.__mro__ if (add := _add_function_of(base)) is not None]
    named = [load_servicer_function(function) for function in add_functions]
    methods = [method for add in (*named, *inherited) for method in _methods_of(add)]
    return {method.full_name: method for method in methods if _is_written(served_by, method.attribute)}


def refuse_stub(served_by: object) -> None:
    """Raises TypeError for a generated class that is for clients, or a class that inherits one."""
    for base in served_by.__mro__ if inspect.isclass(served_by) else ():
        servicer = f"{base.__name__.removesuffix('Stub')}Servicer"
        if base.__name__.endswith("Stub") and hasattr(sys.modules.get(base.__module__), f"add_{servicer}_to_server"):
            raise TypeError(f"{base.__name__} is for clients. Inherit {servicer}, and write its methods.")


def unwritten_methods(served_by: object) -> str:
    """What is wrong with a class that inherits generated servicers, in a sentence; empty if nothing is.

    It writes none of their methods, or one in another spelling than the `.proto` has.
    """
    if not inspect.isclass(served_by):
        return ""
    bases = {base: add for base in served_by.__mro__ if (add := _add_function_of(base)) is not None}
    declared = [method.attribute for add in bases.values() for method in _methods_of(add)]
    missing = [name for name in declared if not _is_written(served_by, name)]
    own = {_plain(name): name for name in dir(served_by) if name not in declared and not name.startswith("_")}
    misspelt = [f"{own[_plain(name)]} is not {name}" for name in missing if _plain(name) in own]
    if misspelt:
        return f"{served_by.__name__} writes methods in another spelling than the .proto: {', '.join(misspelt)}."
    if not declared or len(missing) < len(declared):
        return ""
    names = ", ".join(base.__name__ for base in bases)
    return f"{served_by.__name__} inherits {names} and writes none of its methods: {', '.join(declared[:10])}."


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def load_servicer_function(path_or_callable: str | AddFunction) -> AddFunction:
    """An `add_XServicer_to_server` function, itself or by import path ("package.module.add_X", "package.module:add_X").

    Raises ModuleNotFoundError or ValueError saying what was not found.
    """
    if callable(path_or_callable):
        return path_or_callable
    if not isinstance(path_or_callable, str):
        raise TypeError(f"grpc_servicer_functions takes functions and import paths, got {path_or_callable!r}.")
    module_name, _, attribute = path_or_callable.replace(":", ".").rpartition(".")
    if not module_name:
        raise ValueError(
            f"{path_or_callable!r} is not an import path. Write package.module_pb2_grpc.add_XServicer_to_server."
        )
    return _attribute_of(_import(module_name, path_or_callable), attribute, path_or_callable)


def _import(module_name: str, path: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise  # the module is there; something it imports is not
        raise ModuleNotFoundError(
            f"No module named {error.name!r}, needed for the gRPC servicer function {path!r}. "
            "Is the generated code on the Python path?",
            name=error.name,
        ) from error


def _attribute_of(module: Any, attribute: str, path: str) -> AddFunction:
    function = getattr(module, attribute, None)
    if function is None:
        raise ValueError(f"Module {module.__name__!r} has no {attribute!r}, named by the servicer function {path!r}.")
    if not callable(function):
        raise ValueError(f"{path!r} is not a function but {type(function).__name__}.")
    checked: AddFunction = function
    return checked


def _add_function_of(base: type) -> AddFunction | None:
    """The add function generated beside `base`, None when `base` is not a generated servicer."""
    module = sys.modules.get(base.__module__)
    function = getattr(module, f"add_{base.__name__}_to_server", None)
    # A user's module may import all names of the generated one and give its own class the same name.
    if function is None or function.__module__ != base.__module__:
        return None
    found: AddFunction = function
    return found


def _is_written(cls: type, attribute: str) -> bool:
    owner = next((base for base in cls.__mro__ if attribute in vars(base)), None)
    return owner is not None and _add_function_of(owner) is None


def _methods_of(add: AddFunction) -> list[TypedMethod]:
    servicer, server = _MarkingServicer(), _RecordingServer()
    add(servicer, server)
    handlers = server.registered or server.looked_up(servicer.asked)
    return [_typed_method(full_name, handler) for full_name, handler in handlers.items()]


def _typed_method(full_name: str, handler: Any) -> TypedMethod:
    behaviors = (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
    mark = next(behavior for behavior in behaviors if behavior is not None)
    return TypedMethod(
        full_name=full_name,
        attribute=mark.attribute if isinstance(mark, _Mark) else full_name.rpartition("/")[2],
        streams_request=handler.request_streaming,
        streams_response=handler.response_streaming,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
        is_idempotent=_is_idempotent(full_name, handler.request_deserializer),
    )


def pool_of(request_deserializer: object) -> Any:
    """The pool with the descriptors of a method: that of its request message, since user code may have several."""
    message = getattr(request_deserializer, "__self__", None)
    is_message = isinstance(message, type) and issubclass(message, Message)
    return cast(type[Message], message).DESCRIPTOR.file.pool if is_message else descriptor_pool.Default()


def response_type_of(method: TypedMethod) -> str:
    """The full name of its response message by its `.proto`; empty if that is unknown, or not what it serialises."""
    if getattr(method.response_serializer, "__name__", "") != "SerializeToString":
        return ""
    try:
        found = pool_of(method.request_deserializer).FindMethodByName(method.full_name[1:].replace("/", "."))
    except KeyError:
        return ""
    name: str = found.output_type.full_name
    return name


def _is_idempotent(full_name: str, request_deserializer: object) -> bool:
    """As its `.proto` says. False for services that were written without one."""
    try:
        method = pool_of(request_deserializer).FindMethodByName(full_name[1:].replace("/", "."))
    except KeyError:
        return False
    return method.GetOptions().idempotency_level in (
        descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS,
        descriptor_pb2.MethodOptions.IDEMPOTENT,
    )


@dataclass(frozen=True, slots=True)
class _Mark:
    """Stands for the method `attribute` of the servicer."""

    attribute: str


class _MarkingServicer:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getattr__(self, attribute: str) -> _Mark:
        self.asked.append(attribute)
        return _Mark(attribute)


class _RecordingServer:
    def __init__(self) -> None:
        self.registered: dict[str, Any] = {}
        self._generic: list[Any] = []

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[Any]) -> None:
        self._generic.extend(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        self.registered.update({f"/{service_name}/{name}": handler for name, handler in method_handlers.items()})

    def looked_up(self, names: Iterable[str]) -> dict[str, Any]:
        """For code generated before methods were registered by name: a generic handler can only be asked for names."""
        paths = [(handler, f"/{handler.service_name()}/{name}") for handler in self._generic for name in names]
        found = {path: handler.service(_CallDetails(path)) for handler, path in paths}
        return {path: handler for path, handler in found.items() if handler is not None}


@dataclass(frozen=True, slots=True)
class _CallDetails:
    """What a generic handler is asked with, see grpc.HandlerCallDetails."""

    method: str
    invocation_metadata: tuple[()] = ()
