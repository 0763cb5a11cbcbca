"""`@mesh.ingress`: a deployment class whose replicas serve an ASGI application."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast, overload

from mesh.web.app_snapshot import Function, take_snapshot
from mesh.web.method_routes import is_fastapi, route_methods

BUILD_METHOD = "__serve_build_asgi_app__"
"""A method that makes the application of its object, after the constructor (item 113)."""

_ATTRIBUTE = "__mesh_ingress__"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class IngressApp:
    """What a class carries that `@mesh.ingress` made, or its own base class. It travels with the class."""

    snapshot: bytes = b""
    """The application as it was at the decoration; empty if replicas build it."""
    build: Callable[[], Any] | None = None
    """Builds the application in each replica."""
    methods: tuple[Function, ...] = ()
    """Functions of the class that stand as numbers in the snapshot."""
    docs_path: str = ""
    """Path of the documentation that the application serves, below the route prefix; empty if there is none."""
    build_for: Callable[[Any], Any] | None = None
    """Builds the application of an object, for classes that bring one along."""
    is_optional: bool = False
    """A deployment that is not the ingress may have it too, and then serves no web requests."""


class ASGIIngressDeployment:
    """The class of `mesh.ingress(app)()`, for an application that needs no class. It keeps its arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs


class IngressDecorator(Protocol):
    """For type checkers: what `mesh.ingress` returns."""

    @overload
    def __call__(self, cls: type[T], /) -> type[T]: ...
    @overload
    def __call__(self) -> type[ASGIIngressDeployment]: ...


def ingress(app: Any = None) -> IngressDecorator:
    """Let the replicas of a class serve an ASGI application to web clients.

        app = FastAPI()

        @mesh.deployment
        @mesh.ingress(app)
        class Shop:
            @app.get("/price/{item}")
            def price(self, item: str) -> float: ...

    FastAPI routes may be declared on methods, which get the object of the replica as `self`. The application is taken
    as it is at the decoration: routes that are added later are not served. Its lifespan starts after the constructor
    and ends before `__del__`. Handles call the methods as before. The constructor of the class that is returned is
    `async`, so a subclass with a constructor writes `await super().__init__(...)`.

    Args:
        app: A FastAPI application or router, a Starlette application, any other ASGI callable, or a function without
            parameters that builds one in each replica. Without it the class has a method `__serve_build_asgi_app__`,
            sync or async, that builds it after the constructor.

    Returns:
        A decorator of classes. Called without a class it makes one that only serves the application.

    Raises:
        ValueError: What is decorated is not a class, or has a `__call__`, or neither it nor `app` makes an application.
        TypeError: `app` is not callable, or cannot be pickled.
    """

    if inspect.isclass(app) and not _has_call(app):
        raise TypeError(
            f"mesh.ingress takes an ASGI application, got {app!r}. Write @mesh.ingress(app) above the class."
        )

    def decorate(cls: Any = None) -> Any:
        if cls is None:
            # As if it were written there: a change of that module's source is a change of the deployment.
            cls = _named_like(ASGIIngressDeployment, sys._getframe(1).f_globals.get("__name__", "__main__"))
        return _ingress_class(app, cls)

    return decorate


def ingress_app_of(code: object) -> IngressApp | None:
    """What `@mesh.ingress` left on a class; None for every other class and for functions."""
    found = getattr(code, _ATTRIBUTE, None) if inspect.isclass(code) else None
    return found if isinstance(found, IngressApp) else None


def takes_web_requests(code: object) -> bool:
    """Whether it is an ASGI ingress, a function, or a class whose objects can be called."""
    if not inspect.isclass(code):
        return callable(code)
    return ingress_app_of(code) is not None or _has_call(code)


def _ingress_class(app: Any, cls: Any) -> type:
    if not inspect.isclass(cls):
        raise ValueError(
            f"@mesh.ingress must be used with a class, got {cls!r}. "
            "Write @mesh.deployment above @mesh.ingress, which stands directly above the class."
        )
    if _has_call(cls):
        raise ValueError(
            f"Classes passed to @mesh.ingress may not have a __call__ method, as {cls.__name__} has: "
            "the ASGI application takes the web requests. Give the method another name."
        )
    made = _with_async_constructor(cls)
    setattr(made, _ATTRIBUTE, _ingress_app(app, cls))
    return made


def _named_like(cls: type, module: str) -> type:
    return types.new_class(cls.__name__, (cls,), exec_body=lambda namespace: namespace.update(__module__=module))


def _ingress_app(app: Any, cls: type) -> IngressApp:
    if app is None:
        if not callable(getattr(cls, BUILD_METHOD, None)):
            raise ValueError(
                f"mesh.ingress() without an application needs a method {BUILD_METHOD} in {cls.__name__} that returns "
                "one. Write it, or give mesh.ingress the application."
            )
        return IngressApp()
    if not callable(app):
        raise TypeError(f"mesh.ingress takes an ASGI application, or a function that builds one, got {app!r}.")
    if _is_builder(app):
        return IngressApp(build=app)
    if not is_fastapi(app):
        return IngressApp(take_snapshot(app, {}))
    methods, numbers = route_methods(app, cls)
    return IngressApp(take_snapshot(app, numbers), None, tuple(methods), _docs_path(app))


def _is_builder(app: Any) -> bool:
    """A function that can be called without arguments; an ASGI application takes three."""
    if not inspect.isfunction(app):
        return False
    return all(
        parameter.default is not parameter.empty or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for parameter in inspect.signature(app).parameters.values()
    )


def _docs_path(app: Any) -> str:
    """The path of the documentation of a FastAPI application; a router has none."""
    docs_url, openapi_url = getattr(app, "docs_url", None), getattr(app, "openapi_url", None)
    return docs_url if docs_url and openapi_url else ""


def _has_call(cls: type) -> bool:
    return any("__call__" in vars(base) for base in cls.__mro__)


def _with_async_constructor(cls: Any) -> type:
    """A subclass that is called and looks like `cls`."""

    async def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        result: Any = cls.__init__(self, *args, **kwargs)
        if inspect.isawaitable(result):
            await result

    def __init_subclass__(subclass: Any, /, **keywords: Any) -> None:
        super(made, subclass).__init_subclass__(**keywords)
        _check_constructor(subclass)

    def fill(namespace: dict[str, Any]) -> None:
        namespace |= {
            "__module__": cls.__module__,
            "__qualname__": cls.__qualname__,
            "__doc__": cls.__doc__,
            "__init__": __init__,
            "__init_subclass__": classmethod(__init_subclass__),
        }

    __init__.__signature__ = _constructor_signature(cls)  # type: ignore[attr-defined]
    parameters = getattr(cls, "__parameters__", ())
    made: Any = types.new_class(cls.__name__, (cls[parameters] if parameters else cls,), exec_body=fill)
    return cast(type, made)


def _constructor_signature(cls: type) -> inspect.Signature:
    """The signature of the constructor with `self`: `.bind()` checks its arguments against it."""
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    try:
        parameters = list(inspect.signature(cls, follow_wrapped=False).parameters.values())
    except (TypeError, ValueError):  # a class that is written in C
        parameters = [
            inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
            inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
        ]
    return inspect.Signature([own, *(each for each in parameters if each.name != "self")])


def _check_constructor(subclass: Any) -> None:
    """A constructor that is not async would drop what it does not await (item 113)."""
    if not inspect.iscoroutinefunction(subclass.__init__):
        raise TypeError(
            f"{subclass.__name__}.__init__ must be `async def`, because {subclass.__name__} inherits from a class with "
            "@mesh.ingress, whose constructor is async: write `async def __init__(self, ...)` and in it "
            "`await super().__init__(...)`."
        )
