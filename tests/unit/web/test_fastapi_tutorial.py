"""FastAPI's tutorial in a replica: dependencies, security, middleware, files, WebSockets (items 103, 108)."""

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Cookie,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Request,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
    status,
)
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials, OAuth2PasswordBearer, OAuth2PasswordRequestForm
from fastapi.staticfiles import StaticFiles

import mesh
from mesh.wire.web_messages import encode_message
from tests.unit.fakes.small_mesh import until
from tests.unit.web.web_calls import WebReplica, answer, ask, web_replica, wrong_places

# ---- Dependencies and security ---------------------------------------------------------------------------------------

events: list[str] = []


async def session() -> AsyncIterator[str]:
    note("open")
    try:
        yield "session"
    except ValueError:
        note("rolled back")
        raise
    finally:
        note("close")


def note(event: str) -> None:
    """Found again by its module, as the functions of the application are pickled."""
    from tests.unit.web import test_fastapi_tutorial

    test_fastapi_tutorial.events.append(event)


class Paging:
    def __init__(self, skip: int = 0, limit: int = 10) -> None:
        self.skip, self.limit = skip, limit


async def verify_key(x_key: Annotated[str, Header()]) -> None:
    if x_key != "right":
        raise HTTPException(400, "wrong key")


Session = Annotated[str, Depends(session)]
Bearer = Annotated[str, Depends(OAuth2PasswordBearer(tokenUrl="token"))]
secured = FastAPI()
admin = APIRouter(prefix="/admin", dependencies=[Depends(verify_key)], tags=["admin"])


class Secured:
    def __init__(self) -> None:
        self.users = {"token of alice": "alice"}

    @secured.get("/paged")
    def paged(self, paging: Annotated[Paging, Depends()], opened: Session) -> list[Any]:
        return [paging.skip, paging.limit, opened]

    @secured.get("/broken")
    async def broken(self, opened: Session) -> None:
        raise ValueError(opened)

    @secured.post("/token")
    async def token(self, form: Annotated[OAuth2PasswordRequestForm, Depends()]) -> dict[str, str]:
        if form.password != "secret":
            raise HTTPException(400, "Incorrect username or password")
        return {"access_token": f"token of {form.username}", "token_type": "bearer"}

    @secured.get("/me")
    async def me(self, bearer: Bearer) -> str:
        if bearer not in self.users:
            raise HTTPException(401, "unknown token", {"www-authenticate": "Bearer"})
        return self.users[bearer]

    @secured.get("/basic")
    def basic(self, credentials: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> str:
        return f"{credentials.username}:{credentials.password}"

    @admin.get("/users")
    def list_users(self) -> list[str]:
        return list(self.users.values())


secured.include_router(admin)
Secured = mesh.ingress(secured)(Secured)  # type: ignore[misc]


@pytest.fixture(scope="module")
def bank() -> Iterator[WebReplica]:
    with web_replica(Secured) as replica:
        yield replica


def test_dependencies_with_yield_end_after_the_request(bank: WebReplica) -> None:
    events.clear()
    assert answer(bank, "GET", "/paged?skip=3") == (200, [3, 10, "session"])
    until(lambda: events == ["open", "close"], f"{events}")
    events.clear()
    assert bank.ask("/broken").status == 500
    until(lambda: events == ["open", "rolled back", "close"], f"{events}")


def test_dependencies_of_a_router(bank: WebReplica) -> None:
    assert wrong_places(bank, "GET", "/admin/users") == [["header", "x-key"]]
    assert answer(bank, "GET", "/admin/users", headers={"x-key": "left"}) == (400, {"detail": "wrong key"})
    assert answer(bank, "GET", "/admin/users", headers={"x-key": "right"}) == (200, ["alice"])


def test_the_oauth2_password_flow(bank: WebReplica) -> None:
    refused = ask(bank, "GET", "/me")
    assert (refused.status, refused.headers[b"www-authenticate"]) == (401, b"Bearer")
    form = {"grant_type": "password", "username": "alice", "password": "secret"}
    code, token = answer(bank, "POST", "/token", data=form)
    assert (code, token["token_type"]) == (200, "bearer")
    bearer = {"authorization": f"Bearer {token['access_token']}"}
    assert answer(bank, "GET", "/me", headers=bearer) == (200, "alice")
    assert ask(bank, "GET", "/me", headers={"authorization": "Bearer other"}).status == 401
    assert ask(bank, "POST", "/token", data={**form, "password": "x"}).status == 400
    scheme = json.loads(bank.ask("/openapi.json").body)["components"]["securitySchemes"]["OAuth2PasswordBearer"]
    assert scheme["flows"]["password"]["tokenUrl"] == "token"


def test_basic_authentication(bank: WebReplica) -> None:
    refused = ask(bank, "GET", "/basic")
    assert (refused.status, refused.headers[b"www-authenticate"]) == (401, b"Basic")
    basic = {"authorization": "Basic " + b64encode(b"alice:s:3").decode()}
    assert answer(bank, "GET", "/basic", headers=basic) == (200, "alice:s:3")


# ---- Middleware, errors and background tasks -------------------------------------------------------------------------

layered = FastAPI()
layered.add_middleware(GZipMiddleware, minimum_size=100)
layered.add_middleware(
    CORSMiddleware, allow_origins=["https://app.example.com"], allow_methods=["PUT"], allow_credentials=True
)


@layered.middleware("http")
async def timed(request: Request, call_next: Any) -> Any:
    response = await call_next(request)
    response.headers["x-timed"] = request.url.path
    return response


class UnicornError(Exception):
    pass


@layered.exception_handler(UnicornError)
async def on_unicorn(request: Request, error: UnicornError) -> PlainTextResponse:
    return PlainTextResponse("a unicorn", 418)


@layered.exception_handler(RequestValidationError)
async def on_invalid(request: Request, error: RequestValidationError) -> PlainTextResponse:
    return PlainTextResponse(f"{len(error.errors())} errors", 400)


@mesh.ingress(layered)
class Layered:
    def __init__(self) -> None:
        self.sent: list[str] = []

    @layered.get("/long")
    def long(self) -> PlainTextResponse:
        return PlainTextResponse("x" * 10_000)

    @layered.put("/unicorn")
    async def unicorn(self, n: int) -> None:
        raise UnicornError

    @layered.post("/mail/{address}", status_code=202)
    async def mail(self, address: str, tasks: BackgroundTasks) -> None:
        tasks.add_task(self.sent.append, address)
        tasks.add_task(self.send_later, address)

    def send_later(self, address: str) -> None:
        """In a thread."""
        self.sent.append(f"later {address}")


@pytest.fixture(scope="module")
def office() -> Iterator[WebReplica]:
    with web_replica(Layered) as replica:
        yield replica


def test_middleware_sees_all_requests(office: WebReplica) -> None:
    """Also those without a route."""
    assert ask(office, "GET", "/long").headers[b"x-timed"] == b"/long"
    assert ask(office, "GET", "/none").headers[b"x-timed"] == b"/none"
    zipped = office.ask("/long", headers={"accept-encoding": "gzip"})
    assert (zipped.headers[b"content-encoding"], len(zipped.body) < 1000) == (b"gzip", True)


def test_cors_of_the_application(office: WebReplica) -> None:
    asked = {"origin": "https://app.example.com", "access-control-request-method": "PUT"}
    preflight = ask(office, "OPTIONS", "/unicorn", headers=asked)
    assert preflight.status == 200
    assert preflight.headers[b"access-control-allow-origin"] == b"https://app.example.com"
    other = ask(office, "OPTIONS", "/unicorn", headers={**asked, "origin": "https://evil.net"})
    assert other.status == 400
    simple = ask(office, "GET", "/long", headers={"origin": "https://app.example.com"})
    assert simple.headers[b"access-control-allow-credentials"] == b"true"


def test_handlers_of_exceptions(office: WebReplica) -> None:
    assert ask(office, "PUT", "/unicorn?n=1").text == "a unicorn"
    invalid = ask(office, "PUT", "/unicorn?n=x")
    assert (invalid.status, invalid.text) == (400, "1 errors")


def test_background_tasks_run_behind_the_response(office: WebReplica) -> None:
    assert ask(office, "POST", "/mail/bob").status == 202
    sent = office.object.target.sent
    until(lambda: sent == ["bob", "later bob"], f"{sent}")


# ---- Responses, files and sub-applications ---------------------------------------------------------------------------


def pages(directory: Path) -> FastAPI:
    app = FastAPI()
    sub = FastAPI(title="Sub")

    @sub.get("/where")
    def where(request: Request) -> list[str]:
        return [request.scope["root_path"], request.url.path, str(request.url_for("where"))]

    @app.get("/page", response_class=HTMLResponse)
    def page() -> str:
        return "<p>hello</p>"

    @app.get("/file")
    def file() -> FileResponse:
        return FileResponse(directory / "a.txt", filename="b.txt")

    @app.get("/moved")
    def moved() -> RedirectResponse:
        return RedirectResponse("/page")

    @app.get("/nothing", status_code=204)
    def nothing() -> None: ...

    @app.get("/stream")
    def stream() -> StreamingResponse:
        return StreamingResponse((f"data: {number}\n\n" for number in range(3)), media_type="text/event-stream")

    app.mount("/static", StaticFiles(directory=directory), name="static")
    app.mount("/sub", sub)
    return app


@pytest.fixture
def site(tmp_path: Path) -> Iterator[WebReplica]:
    (tmp_path / "a.txt").write_text("hello")
    with web_replica(mesh.ingress(lambda: pages(tmp_path))()) as replica:
        yield replica


def test_responses_of_other_kinds(site: WebReplica) -> None:
    assert ask(site, "GET", "/page").headers[b"content-type"] == b"text/html; charset=utf-8"
    file = ask(site, "GET", "/file")
    assert (file.text, file.headers[b"content-disposition"]) == ("hello", b'attachment; filename="b.txt"')
    part = ask(site, "GET", "/file", headers={"range": "bytes=1-3"})
    assert (part.status, part.text) == (206, "ell")
    assert ask(site, "GET", "/moved").headers[b"location"] == b"/page"
    nothing = ask(site, "GET", "/nothing")
    assert (nothing.status, nothing.body) == (204, b"")
    stream = ask(site, "GET", "/stream")
    assert (stream.text, len(stream.pieces)) == ("data: 0\n\ndata: 1\n\ndata: 2\n\n", 3)


def test_static_files(site: WebReplica) -> None:
    found = ask(site, "GET", "/static/a.txt")
    assert (found.text, found.headers[b"content-type"]) == ("hello", b"text/plain; charset=utf-8")
    again = ask(site, "GET", "/static/a.txt", headers={"if-none-match": found.headers[b"etag"].decode()})
    assert (again.status, again.body) == (304, b"")
    assert ask(site, "GET", "/static/%2e%2e/secret").status == 404
    assert ask(site, "HEAD", "/static/a.txt").headers[b"content-length"] == b"5"


def test_sub_applications_know_where_they_are_mounted(site: WebReplica) -> None:
    """Also below a route prefix (item 109)."""
    where = site.ask("/shop/sub/where", root_path="/shop")
    assert json.loads(where.body) == ["/shop/sub", "/shop/sub/where", "http://test/shop/sub/where"]
    assert "/shop/sub/openapi.json" in site.ask("/shop/sub/docs", root_path="/shop").text
    document = json.loads(site.ask("/shop/sub/openapi.json", root_path="/shop").body)
    assert (document["info"]["title"], document["servers"]) == ("Sub", [{"url": "/shop/sub"}])


# ---- WebSockets ------------------------------------------------------------------------------------------------------

chat = FastAPI()


async def cookie_or_token(session: Annotated[str | None, Cookie()] = None, token: str | None = None) -> str:
    if session is None and token is None:
        raise WebSocketException(code=status.WS_1008_POLICY_VIOLATION)
    return session or token or ""


@mesh.ingress(chat)
class Chat:
    def __init__(self) -> None:
        self.active: list[WebSocket] = []

    @chat.websocket("/rooms/{room}")
    async def room(self, websocket: WebSocket, room: int, who: Annotated[str, Depends(cookie_or_token)]) -> None:
        await websocket.accept()
        self.active.append(websocket)
        try:
            while True:
                data = await websocket.receive_json()
                for each in self.active:
                    await each.send_json({"room": room, who: data})
        except WebSocketDisconnect:
            self.active.remove(websocket)
            for each in self.active:
                await each.send_text(f"{who} left")


def test_websockets_with_dependencies() -> None:
    """A message of one reaches all that are connected, and so does the news that one has left."""
    with web_replica(Chat) as replica:
        refused = replica.connect("/rooms/1")
        assert refused.ended().is_ok
        assert [event.close.code for event in refused.events()] == [1008]
        alice = replica.connect("/rooms/1?token=alice")
        bob = replica.connect("/rooms/2", headers={"cookie": "session=bob"})
        for call in (alice, bob):
            call.wait_items(1)
        alice.push(encode_message('{"text": "hi"}'))
        for call, room in ((alice, 1), (bob, 1)):
            call.wait_items(2)
            assert json.loads(call.events()[1].text) == {"room": room, "alice": {"text": "hi"}}
        alice.half_close()
        bob.wait_items(3)
        assert bob.events()[2].text == "alice left"
        bob.half_close()
        assert bob.ended().is_ok
