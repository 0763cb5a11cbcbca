"""FastAPI applications in replicas: routes on methods, applications of several classes, builders (items 103–113)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, WebSocket
from pydantic import BaseModel

import mesh
from mesh.context import current_request
from mesh.exceptions import BackPressureError, DeploymentUnavailableError
from mesh.wire.web_messages import encode_message
from tests.unit.fakes.small_mesh import until
from tests.unit.web.web_calls import WebReplica, web_replica


class Item(BaseModel):
    name: str
    price: float
    tags: list[str] = []


def user_of(token: Annotated[str, Header()]) -> str:
    if token != "secret":
        raise HTTPException(401, "no such token")
    return "alice"


User = Annotated[str, Depends(user_of)]

shop_app = FastAPI(title="Shop")


@shop_app.get("/version")
def version() -> str:
    return "1"


@mesh.ingress(shop_app)
class Shop:
    def __init__(self, name: str) -> None:
        self.name = name
        self.items: dict[str, Item] = {}

    @shop_app.get("/name")
    def read_name(self) -> str:
        return self.name

    @shop_app.get("/items/{item_id}")
    async def read_item(self, item_id: str, q: int | None = None) -> dict[str, Any]:
        if item_id not in self.items:
            raise HTTPException(404, "no such item")
        return {"item": self.items[item_id], "q": q}

    @shop_app.put("/items/{item_id}", status_code=201, response_model=Item, tags=["items"])
    async def write_item(self, item_id: str, item: Item, user: User) -> Any:
        self.items[item_id] = item
        return {**item.model_dump(), "secret": user}

    @shop_app.get("/twice")
    def twice(self) -> str:
        return "first"

    @shop_app.post("/twice")
    def twice(self) -> str:  # noqa: F811
        return "second"

    @shop_app.get("/static")
    @staticmethod
    def static(n: int = 1) -> int:
        return n

    @classmethod
    @shop_app.get("/class")
    def of_class(cls) -> str:
        return cls.__name__

    @shop_app.websocket("/echo/{room}")
    async def echo(self, websocket: WebSocket, room: str) -> None:
        await websocket.accept()
        await websocket.send_text(f"{self.name} {room} {await websocket.receive_text()}")
        await websocket.close()

    def sell(self) -> str:
        return f"sold by {self.name}"


shop_app.get("/late")(lambda: "too late")


@mesh.ingress(shop_app)
class Bank:
    @shop_app.get("/balance")
    def balance(self) -> int:
        return 7


def ask_json(replica: WebReplica, path: str, method: str = "GET", **fields: Any) -> tuple[int, str]:
    response = replica.ask(path, method=method, **fields)
    return response.status, response.text


def test_methods_are_endpoints_with_the_object_of_the_replica_as_self() -> None:
    """One application with much of what FastAPI offers (items 103, 107, 131)."""
    with web_replica(Shop, "corner") as shop:
        assert ask_json(shop, "/name") == (200, '"corner"')
        assert ask_json(shop, "/version") == (200, '"1"')
        body = b'{"name": "pear", "price": 2.5}'
        headers = {"content-type": "application/json", "token": "secret"}
        status, text = ask_json(shop, "/items/1", "PUT", body=body, headers=headers)
        assert (status, text) == (201, '{"name":"pear","price":2.5,"tags":[]}')
        assert ask_json(shop, "/items/1?q=3")[1].endswith('"q":3}')
        assert ask_json(shop, "/items/2") == (404, '{"detail":"no such item"}')
        assert ask_json(shop, "/items/1?q=x")[0] == 422
        assert ask_json(shop, "/items/1", "PUT", body=body, headers={**headers, "token": "no"})[0] == 401
        assert ask_json(shop, "/twice") == (200, '"first"')
        assert ask_json(shop, "/twice", "POST") == (200, '"second"')
        assert ask_json(shop, "/static?n=4") == (200, "4")
        assert ask_json(shop, "/class") == (200, '"Shop"')
        assert shop.ask("/items/1").route == "/items/{item_id}"


def test_methods_take_websockets() -> None:
    with web_replica(Shop, "corner") as shop:
        call = shop.connect("/echo/kitchen")
        call.push(encode_message("hi"))
        assert call.ended().is_ok
        assert [event.WhichOneof("kind") for event in call.events()] == ["accept", "text", "close"]
        assert call.events()[0].accept.route == "/echo/{room}"
        assert call.events()[1].text == "corner kitchen hi"


def test_the_openapi_document_knows_no_self() -> None:
    with web_replica(Shop, "corner") as shop:
        text = shop.ask("/openapi.json").text
        assert '"title":"Shop"' in text
        assert '"self"' not in text
        assert '"tags":["items"]' in text


def test_routes_that_are_added_later_are_not_served() -> None:
    """The application is taken as it is at the decoration (item 104)."""
    with web_replica(Shop, "corner") as shop:
        assert shop.ask("/late").status == 404


def test_each_class_of_an_application_serves_its_own_methods() -> None:
    """Deployments that share an application serve each its own methods (item 106)."""
    with web_replica(Bank) as bank:
        assert ask_json(bank, "/balance") == (200, "7")
        assert ask_json(bank, "/version") == (200, '"1"')
        assert ask_json(bank, "/late") == (200, '"too late"')
        assert bank.ask("/name").status == 404
        assert "/items" not in bank.ask("/openapi.json").text
    with web_replica(Shop, "corner") as shop:
        assert shop.ask("/balance").status == 404


def test_handles_call_the_methods_still() -> None:
    """A method is a method of the object as well (item 108)."""
    with web_replica(Shop, "corner") as shop:
        assert shop.object.target.sell() == "sold by corner"


base_app = FastAPI()


class Base:
    greeting = "base"

    @base_app.get("/greet")
    def greet(self) -> str:
        return self.greeting


@mesh.ingress(base_app)
class Derived(Base):
    greeting = "derived"

    @base_app.get("/who")
    def who(self) -> str:
        return super().greet() + " " + type(self).__name__


class Further(Derived):
    async def __init__(self) -> None:
        await super().__init__()
        self.greeting = "further"


def test_methods_of_base_classes_are_endpoints_too() -> None:
    with web_replica(Derived) as replica:
        assert ask_json(replica, "/greet") == (200, '"derived"')
        assert ask_json(replica, "/who") == (200, '"derived Derived"')
    with web_replica(Further) as replica:
        assert ask_json(replica, "/greet") == (200, '"further"')


router_of_methods = APIRouter(prefix="/things", tags=["things"])


@mesh.ingress(router_of_methods)
class Things:
    @router_of_methods.get("/{thing}")
    def read(self, thing: str) -> str:
        return thing


nested_app = FastAPI()
nested_router = APIRouter()


class Nested:
    @nested_router.get("/list")
    def things(self) -> list[int]:
        return [1, 2]

    @nested_router.websocket("/ws")
    async def socket(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(4001, "bye")


nested_app.include_router(nested_router, prefix="/nested")
Nested = mesh.ingress(nested_app)(Nested)  # type: ignore[misc]


def test_routers_are_applications() -> None:
    """A router needs no application around it (item 103)."""
    with web_replica(Things) as replica:
        assert ask_json(replica, "/things/x") == (200, '"x"')
        assert replica.ask("/docs").status == 404


def test_routers_with_methods_are_included_with_their_prefix() -> None:
    with web_replica(Nested) as replica:
        response = replica.ask("/nested/list")
        assert (response.text, response.route) == ("[1,2]", "/nested/list")
        call = replica.connect("/nested/ws")
        assert call.ended().is_ok
        assert (call.events()[-1].close.code, call.events()[-1].close.reason) == (4001, "bye")


def build_app() -> FastAPI:
    app = FastAPI()
    app.get("/built")(lambda: mesh.get_replica_context and "built")
    return app


class Late:
    def __init__(self, word: str) -> None:
        self.word = word

    async def __serve_build_asgi_app__(self) -> FastAPI:
        app = FastAPI()
        app.get("/word")(lambda: self.word)
        return app


def test_functions_and_methods_build_applications_in_the_replica() -> None:
    """The application may be built after the constructor (item 113)."""
    with web_replica(mesh.ingress(build_app)()) as replica:
        assert ask_json(replica, "/built") == (200, '"built"')
    with web_replica(mesh.ingress()(Late), "hello") as replica:
        assert ask_json(replica, "/word") == (200, '"hello"')
    with web_replica(mesh.ingress(FastAPI())(Late), "placeholder") as replica:
        assert ask_json(replica, "/word") == (200, '"placeholder"')


def test_a_builder_that_builds_nothing_fails_the_start() -> None:
    with pytest.raises(TypeError, match="its builder returned None"):
        WebReplica(mesh.ingress(lambda: None)())


prefixed_app = FastAPI()


@mesh.ingress(prefixed_app)
class Prefixed:
    @prefixed_app.get("/where/")
    def where(self, request: Request) -> list[str]:
        served = current_request()
        assert served is not None
        return [request.scope["root_path"], request.url.path, str(request.url_for("where")), served.route]


def test_paths_below_a_prefix() -> None:
    """Documentation, redirects and URLs keep the prefix (items 109, 131)."""
    with web_replica(Prefixed) as replica:

        def ask(path: str) -> Any:
            return replica.ask(path, root_path="/shop")

        assert ask("/shop/where/").text == '["/shop","/shop/where/","http://test/shop/where/","/shop/where/"]'
        redirect = ask("/shop/where")
        assert (redirect.status, redirect.headers[b"location"]) == (307, b"http://test/shop/where/")
        assert "/shop/openapi.json" in ask("/shop/docs").text
        assert '"servers":[{"url":"/shop"}]' in ask("/shop/openapi.json").text
        assert ask("/shop").status == 404


failing_app = FastAPI()


@mesh.ingress(failing_app)
class Failing:
    @failing_app.get("/full")
    def full(self) -> None:
        raise BackPressureError(num_queued_requests=1, max_queued_requests=1, status_code=429, retry_after_s=1.2)

    @failing_app.get("/gone")
    async def gone(self) -> None:
        raise DeploymentUnavailableError("app#Model", "it failed")

    @failing_app.get("/broken")
    async def broken(self) -> None:
        raise ValueError("no such number")


def test_the_log_names_the_route_of_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    with web_replica(Failing) as replica:
        replica.ask("/broken", root_path="", headers={"x": "1"})
        until(lambda: "no such number" in caplog.text, "the log")
    assert [each for each in caplog.messages if "failed" in each] == ["GET /broken failed: ValueError: no such number"]


def test_errors_of_the_mesh_have_their_own_statuses() -> None:
    """Back-pressure is not a failure of the application (item 113)."""
    with web_replica(Failing) as replica:
        full = replica.ask("/full")
        assert (full.status, full.headers[b"retry-after"]) == (429, b"2")
        assert "backpressure" in full.text
        assert replica.ask("/gone").status == 503
        assert replica.ask("/broken").status == 500


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, int]]:
    app.state.started = True
    Recorder.events.append("startup")
    yield {"answer": 42}
    Recorder.events.append("shutdown")


class Recorder:
    """What happens in a replica, in its order; found again by its module, and so not part of the pickles."""

    events: list[str] = []  # noqa: RUF012


living_app = FastAPI(lifespan=lifespan)


@mesh.ingress(living_app)
class Living:
    def __init__(self) -> None:
        self.record("constructor")

    def record(self, event: str) -> None:
        from tests.unit.web import test_fastapi_apps

        test_fastapi_apps.Recorder.events.append(event)

    @living_app.get("/state")
    def state(self, request: Request) -> list[Any]:
        return [request.app.state.started, request.state.answer]

    def __del__(self) -> None:
        self.record("__del__")


@pytest.mark.parametrize("is_isolated", [True, False])
def test_the_lifespan_lies_within_the_life_of_the_object(is_isolated: bool) -> None:
    """Startup follows the constructor, and shutdown comes before `__del__` (item 105)."""
    Recorder.events.clear()
    with web_replica(Living, is_isolated=is_isolated) as replica:
        assert ask_json(replica, "/state") == (200, "[true,42]")
        assert Recorder.events == ["constructor", "startup"]
        replica.delete()
    assert Recorder.events == ["constructor", "startup", "shutdown", "__del__"]
