"""FastAPI routes that are declared on methods: which they are, and their binding to the object of a replica (item 103).

FastAPI is the user's dependency: nothing here imports it unless the application is one of FastAPI's.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any, get_type_hints

from mesh.web.app_snapshot import Function

FOREIGN = -1
"""Stands for every method of another class."""


def is_fastapi(app: object) -> bool:
    """Whether it is an application or a router of FastAPI."""
    fastapi = sys.modules.get("fastapi")
    return fastapi is not None and isinstance(app, fastapi.FastAPI | fastapi.APIRouter)


def route_methods(app: Any, cls: type) -> tuple[list[Function], dict[int, int]]:
    """The functions of `cls` that are endpoints of routes, and the number of each by its id; FOREIGN for others'."""
    own: list[Function] = []
    numbers: dict[int, int] = {}
    for _, route in _routes_of(app):
        endpoint = route.endpoint
        if id(endpoint) in numbers or not isinstance(endpoint, FunctionType):
            continue
        if _is_method_of(endpoint, cls):
            _resolve_annotations(route.dependant)
            numbers[id(endpoint)] = len(own)
            own.append(endpoint)
        elif _is_method(endpoint):
            numbers[id(endpoint)] = FOREIGN
    return own, numbers


def foreign_endpoint() -> None:
    """In the place of a method of another class, until its route is taken out."""


def bound(function: Function, instance: object) -> Function:
    """A method of the object, or of its class for a classmethod."""
    found = inspect.getattr_static(type(instance), function.__name__, None)
    is_classmethod = isinstance(found, classmethod) and found.__func__ is function
    return MethodType(function, type(instance) if is_classmethod else instance)


def bind_routes(app: Any, instance: object) -> None:
    """Analyse the routes with bound methods again, without `self`, and take out those of other classes."""
    for routes, route in list(_routes_of(app)):
        if route.endpoint is foreign_endpoint:
            routes.remove(route)
        elif isinstance(route.endpoint, MethodType) and _is_one_of(route.endpoint.__self__, instance, type(instance)):
            _analyse(route)
    if hasattr(app, "openapi_schema"):
        app.openapi_schema = None


def _analyse(route: Any) -> None:
    """Make the route again of its own attributes, which are named like the parameters of its constructor."""
    routing = sys.modules["fastapi.routing"]
    kind = routing.APIRoute if isinstance(route, routing.APIRoute) else routing.APIWebSocketRoute
    names = inspect.signature(kind.__init__).parameters
    values = {name: getattr(route, name) for name in names if name != "self" and hasattr(route, name)}
    if getattr(route, "stream_item_type", None) is not None:
        # FastAPI finds the type of streamed items in the annotation only where it is given no model.
        del values["response_model"]
    kind.__init__(route, **values)


def _resolve_annotations(dependant: Any) -> None:
    """Replace annotations that are text, as `from __future__ import annotations` makes them, by what they name.

    The replica analyses these functions again. A function that travels by value keeps of its module only the names that
    its code uses, so that FastAPI would not find there what an annotation names.
    """
    function = _annotated(dependant.call)
    if function is not None:
        for name, text in list(function.__annotations__.items()):
            if isinstance(text, str):
                with contextlib.suppress(
                    NameError
                ):  # a name for type checkers only, which FastAPI does without as well
                    function.__annotations__[name] = _named_by(text, function.__globals__)
    for each in dependant.dependencies:
        _resolve_annotations(each)


def _annotated(call: Any) -> FunctionType | None:
    """The function whose annotations FastAPI reads when it calls a dependency."""
    if inspect.isclass(call):
        call = call.__init__
    elif not isinstance(call, FunctionType | MethodType):
        call = type(call).__call__
    found = getattr(call, "__func__", call)
    return found if isinstance(found, FunctionType) else None


def _named_by(text: str, names: dict[str, Any]) -> Any:
    annotated = SimpleNamespace(__annotations__={"it": text})
    found = get_type_hints(annotated, globalns=names, include_extras=True)["it"]
    return None if found is type(None) else found


def _is_one_of(owner: object, *owners: object) -> bool:
    return any(owner is each for each in owners)


def _routes_of(router: Any) -> Iterator[tuple[list[Any], Any]]:
    """The routes of FastAPI's own kinds with the lists that hold them, those of included routers as well."""
    routing = sys.modules["fastapi.routing"]
    for route in router.routes:
        if isinstance(route, routing.APIRoute | routing.APIWebSocketRoute):
            yield router.routes, route
        elif hasattr(route, "original_router"):
            yield from _routes_of(route.original_router)


def _is_method_of(function: FunctionType, cls: type) -> bool:
    owners = [base for base in cls.__mro__ if _is_defined_in(function, base)]
    if not owners:
        return False
    return not isinstance(vars(owners[0]).get(function.__name__), staticmethod)


def _is_defined_in(function: FunctionType, cls: type) -> bool:
    """By name: a later method of the same name hides the function in the class."""
    owner = function.__qualname__.rpartition(".")[0]
    return owner == cls.__qualname__ and function.__module__ == cls.__module__


def _is_method(function: FunctionType) -> bool:
    """Whether it looks like the method of a class that is not known here."""
    owner = function.__qualname__.rpartition(".")[0]
    first = next(iter(inspect.signature(function).parameters), "")
    return bool(owner) and not owner.endswith("<locals>") and first in ("self", "cls")
