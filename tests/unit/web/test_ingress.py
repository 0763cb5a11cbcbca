"""mesh.web.ingress: what `@mesh.ingress` makes of a class, and what it refuses (items 102–113)."""

import inspect
import socket
import threading
from typing import Any, Generic, TypeVar

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette

import mesh
from mesh.application import BuildRules, build
from mesh.exceptions import MeshException
from mesh.web.ingress import IngressApp, ingress_app_of, takes_web_requests

T = TypeVar("T")
RULES = BuildRules(make_handle=lambda name, app: name, version_of=lambda code, packed: "1")


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """Any ASGI callable."""


def build_app() -> FastAPI:
    return FastAPI()


class Shop:
    """A shop."""

    def __init__(self, size: int, *, name: str = "") -> None:
        self.size = size

    def sell(self) -> int:
        return self.size


def spec_of(application: Any) -> Any:
    return build(application, name="app", route_prefix="/shop", rules=RULES)


def test_only_classes_without_call_are_decorated() -> None:
    """A `__call__` and an application would compete for the requests (item 102)."""

    def function() -> None: ...

    class Callable:
        def __call__(self) -> None: ...

    class Inherits(Callable):
        pass

    decorate: Any = mesh.ingress(FastAPI())
    with pytest.raises(ValueError, match="must be used with a class"):
        decorate(function)
    with pytest.raises(ValueError, match=r"Write @mesh.deployment above @mesh.ingress"):
        decorate(mesh.deployment(Shop))
    for cls in (Callable, Inherits):
        with pytest.raises(ValueError, match="may not have a __call__ method"):
            decorate(cls)


def test_a_class_keeps_its_name_and_its_methods() -> None:
    """Names of deployments come from it (item 107)."""
    made = mesh.ingress(FastAPI())(Shop)
    assert (made.__name__, made.__qualname__, made.__module__, made.__doc__) == (
        "Shop",
        "Shop",
        Shop.__module__,
        "A shop.",
    )
    assert issubclass(made, Shop)
    assert mesh.deployment(made).name == "Shop"


def test_a_generic_class_stays_one() -> None:
    """It may be deployed with and without its parameters (item 107)."""

    class Box(Generic[T]):
        def __init__(self, content: T) -> None:
            self.content = content

    made: Any = mesh.ingress(FastAPI())(Box)
    for deployed in (made, made[int]):
        code = mesh.deployment(deployed).func_or_class
        assert (code.__name__, code.__parameters__, ingress_app_of(code)) == ("Box", (T,), ingress_app_of(made))


def test_bind_checks_the_arguments_of_the_users_constructor() -> None:
    shop = mesh.deployment(mesh.ingress(FastAPI())(Shop))
    shop.bind(3, name="x")
    for arguments in ((), (1, 2)):
        with pytest.raises(TypeError, match="The constructor takes"):
            shop.bind(*arguments)
    empty = mesh.deployment(mesh.ingress(FastAPI())(type("Empty", (), {})))
    with pytest.raises(TypeError):
        empty.bind(1)


def test_an_application_that_cannot_be_pickled_is_refused() -> None:
    """The error says so at the decoration (item 104)."""
    app = FastAPI()
    with socket.socket() as app.state.socket, pytest.raises(TypeError, match="Failed to serialize the ASGI app"):
        mesh.ingress(app)(Shop)


def test_locks_of_routers_are_no_obstacle() -> None:
    app = FastAPI()
    app.state.lock = threading.Lock()
    app.include_router(APIRouter())
    assert ingress_app_of(mesh.ingress(app)(Shop)) is not None


def test_what_is_no_application_is_refused() -> None:
    with pytest.raises(TypeError, match="takes an ASGI application"):
        mesh.ingress("main:app")(Shop)


def test_without_an_application_the_class_has_to_build_one() -> None:
    """The method replaces the argument (item 113)."""
    with pytest.raises(ValueError, match="__serve_build_asgi_app__"):
        mesh.ingress()(Shop)

    class Builds:
        def __serve_build_asgi_app__(self) -> FastAPI:
            return FastAPI()

    assert ingress_app_of(mesh.ingress()(Builds)) == IngressApp()


def test_functions_without_parameters_build_and_others_are_applications() -> None:
    built, called = ingress_app_of(mesh.ingress(build_app)(Shop)), ingress_app_of(mesh.ingress(asgi_app)(Shop))
    assert built is not None
    assert built.build is build_app
    assert called is not None
    assert called.build is None
    assert called.snapshot


def test_subclasses_have_async_constructors() -> None:
    """A sync constructor would drop what its base class awaits (item 113)."""
    made = mesh.ingress(FastAPI())(Shop)
    with pytest.raises(TypeError, match=r"Sub.__init__ must be `async def`.*await super"):

        class Sub(made):  # type: ignore[misc, valid-type]
            def __init__(self) -> None: ...

    class Mixin:
        def __init__(self) -> None: ...

    with pytest.raises(TypeError, match="must be `async def`"):
        type("Mixed", (Mixin, made), {})

    class Fine(made):  # type: ignore[misc, valid-type]
        async def __init__(self) -> None:
            await super().__init__(1)

    assert inspect.iscoroutinefunction(type("NoConstructor", (made,), {}).__init__)
    assert ingress_app_of(Fine) is ingress_app_of(made)


def test_an_application_needs_no_class() -> None:
    made = mesh.ingress(FastAPI())()
    assert mesh.deployment(made).name == "ASGIIngressDeployment"
    assert made.__module__ == __name__, "its version follows the source of this module"
    mesh.deployment(made).bind(1, two=2)


@pytest.mark.parametrize(
    ("app", "docs_path"),
    [
        (FastAPI(), "/docs"),
        (FastAPI(docs_url="/help"), "/help"),
        (FastAPI(docs_url=None), ""),
        (FastAPI(openapi_url=None), ""),
        (Starlette(), ""),
        (APIRouter(), ""),
        (build_app, ""),
    ],
)
def test_the_spec_has_the_docs_path_of_a_fastapi_application(app: Any, docs_path: str) -> None:
    """The path is below the route prefix (item 107)."""
    spec = spec_of(mesh.deployment(mesh.ingress(app)(Shop)).bind(1))
    assert (spec.deployments[0].serves_web, spec.deployments[0].docs_path) == (True, docs_path)
    assert spec.route_prefix == "/shop"


def test_two_asgi_deployments_in_one_application_are_refused() -> None:
    """Only one deployment can take the web requests (item 110)."""

    @mesh.deployment
    @mesh.ingress(FastAPI())
    class Outer:
        def __init__(self, inner: Any) -> None: ...

    @mesh.deployment
    @mesh.ingress(FastAPI())
    class Inner: ...

    with pytest.raises(MeshException, match=r"several deployments with @mesh.ingress: Inner, Outer"):
        spec_of(Outer.bind(Inner.bind()))


def test_only_the_ingress_of_an_application_serves_web_requests() -> None:
    @mesh.deployment
    class Inner:
        def __call__(self) -> None: ...

    @mesh.deployment
    class Outer:
        def __init__(self, inner: Any) -> None: ...

        def __call__(self) -> None: ...

    inner, outer = spec_of(Outer.bind(Inner.bind())).deployments
    assert (inner.name, inner.serves_web) == ("Inner", False)
    assert (outer.name, outer.serves_web) == ("Outer", True)


def test_classes_with_a_call_and_functions_take_web_requests() -> None:
    assert takes_web_requests(build_app)
    assert takes_web_requests(type("Called", (), {"__call__": lambda self: None}))
    assert takes_web_requests(mesh.ingress(FastAPI())(Shop))
    assert not takes_web_requests(Shop)
