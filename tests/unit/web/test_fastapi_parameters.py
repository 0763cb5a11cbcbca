"""What FastAPI reads from requests, in methods of an ingress class: the first chapters of its tutorial (item 103)."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import httpx
import pytest
from fastapi import Body, Cookie, FastAPI, File, Form, Header, Query, Response, UploadFile, status
from fastapi import Path as PathParameter
from pydantic import BaseModel, Field

import mesh
from tests.unit.web.web_calls import WebReplica, answer, ask, web_replica, wrong_places


class Size(StrEnum):
    small = "small"
    large = "large"


class Image(BaseModel):
    url: str
    name: str = "none"


class Item(BaseModel):
    model_config = {"extra": "forbid"}
    name: str = Field(min_length=1)
    price: float = Field(gt=0)
    tags: set[str] = set()
    image: Image | None = None


class Owner(BaseModel):
    username: str


class Registration(Owner):
    password: str


class Filters(BaseModel):
    limit: int = Field(100, gt=0, le=100)
    order: Literal["up", "down"] = "up"


parameters = FastAPI()


@mesh.ingress(parameters)
class Parameters:
    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    @parameters.get("/items/{item_id}")
    async def read(self, item_id: Annotated[int, PathParameter(ge=1)], size: Size = Size.small) -> dict[str, Any]:
        return {"id": f"{self.prefix}{item_id}", "size": size}

    @parameters.get("/files/{path:path}")
    def file(self, path: str) -> str:
        return path

    @parameters.get("/search")
    async def search(
        self,
        q: Annotated[list[str], Query(min_length=1)],
        short: bool = False,
        pattern: Annotated[str | None, Query(alias="item-query", pattern="^fixed$")] = None,
    ) -> dict[str, Any]:
        return {"q": q, "short": short, "pattern": pattern}

    @parameters.get("/filtered")
    def filtered(self, filters: Annotated[Filters, Query()]) -> Filters:
        return filters

    @parameters.put("/items/{item_id}")
    async def write(
        self, item_id: int, item: Item, owner: Owner, importance: Annotated[int, Body(ge=0)], q: str | None = None
    ) -> dict[str, Any]:
        return {"id": item_id, "item": item, "owner": owner, "importance": importance, "q": q}

    @parameters.post("/embedded")
    def embedded(self, item: Annotated[Item, Body(embed=True)]) -> str:
        return item.name

    @parameters.post("/times/{key}")
    def times(self, key: UUID, start: Annotated[datetime, Body()], wait: Annotated[timedelta, Body()]) -> datetime:
        return start + wait

    @parameters.get("/from-headers")
    def from_headers(
        self,
        user_agent: Annotated[str, Header()],
        session: Annotated[str | None, Cookie()] = None,
    ) -> list[str | None]:
        return [user_agent, session]

    @parameters.post("/users", response_model=Owner, status_code=status.HTTP_201_CREATED)
    def user(self, registration: Registration, response: Response) -> Any:
        response.set_cookie("owner", registration.username)
        response.headers["x-own"] = "1"
        return registration


@pytest.fixture(scope="module")
def shop() -> Iterator[WebReplica]:
    with web_replica(Parameters, "no ") as replica:
        yield replica


def test_path_and_query_parameters(shop: WebReplica) -> None:
    assert answer(shop, "GET", "/items/3?size=large") == (200, {"id": "no 3", "size": "large"})
    assert wrong_places(shop, "GET", "/items/0?size=huge") == [["path", "item_id"], ["query", "size"]]
    assert wrong_places(shop, "GET", "/items/x") == [["path", "item_id"]]
    assert answer(shop, "GET", "/files//a/b%20c.txt") == (200, "/a/b c.txt")


def test_query_parameters_with_rules(shop: WebReplica) -> None:
    found = answer(shop, "GET", "/search?q=a&q=b&short=on&item-query=fixed")
    assert found == (200, {"q": ["a", "b"], "short": True, "pattern": "fixed"})
    assert wrong_places(shop, "GET", "/search?item-query=other") == [["query", "q"], ["query", "item-query"]]
    assert answer(shop, "GET", "/filtered?limit=5&order=down") == (200, {"limit": 5, "order": "down"})
    assert wrong_places(shop, "GET", "/filtered?limit=0&order=left") == [["query", "limit"], ["query", "order"]]


def test_bodies_of_several_parameters(shop: WebReplica) -> None:
    item = {"name": "pear", "price": 2.5, "tags": ["a", "a"], "image": {"url": "x"}}
    body = {"item": item, "owner": {"username": "alice"}, "importance": 1}
    code, tree = answer(shop, "PUT", "/items/7?q=z", json=body)
    assert (code, tree["item"]["tags"], tree["item"]["image"]) == (200, ["a"], {"url": "x", "name": "none"})
    assert (tree["owner"], tree["importance"], tree["q"]) == ({"username": "alice"}, 1, "z")
    wrong = {"item": {"name": "", "price": 0, "color": "red"}, "owner": {}, "importance": -1}
    assert wrong_places(shop, "PUT", "/items/7", json=wrong) == [
        ["body", "item", "name"],
        ["body", "item", "price"],
        ["body", "item", "color"],
        ["body", "owner", "username"],
        ["body", "importance"],
    ]
    assert answer(shop, "POST", "/embedded", json={"item": {"name": "fig", "price": 1}}) == (200, "fig")


def test_bodies_that_are_no_json(shop: WebReplica) -> None:
    headers = {"content-type": "application/json"}
    code, tree = answer(shop, "POST", "/embedded", content=b'{"item": ', headers=headers)
    assert (code, tree["detail"][0]["type"]) == (422, "json_invalid")
    assert wrong_places(shop, "POST", "/embedded") == [["body", "item"]]


def test_other_types(shop: WebReplica) -> None:
    body = {"start": "2026-11-29T00:00:00", "wait": 3600}
    path = "/times/6f1ed002-ab5c-4a1f-8d8e-1d2f6a3f4b5c"
    assert answer(shop, "POST", path, json=body) == (200, "2026-11-29T01:00:00")
    assert wrong_places(shop, "POST", "/times/1", json={**body, "wait": "soon"}) == [["path", "key"], ["body", "wait"]]


def test_headers_and_cookies_both_ways(shop: WebReplica) -> None:
    headers = {"user-agent": "me", "cookie": "session=s1"}
    assert answer(shop, "GET", "/from-headers", headers=headers) == (200, ["me", "s1"])
    made = ask(shop, "POST", "/users", json={"username": "bob", "password": "secret"})
    assert (made.status, json.loads(made.body)) == (201, {"username": "bob"})
    assert made.headers[b"x-own"] == b"1"
    assert made.headers[b"set-cookie"].startswith(b"owner=bob")


# ---- Forms and files -------------------------------------------------------------------------------------------------

forms = FastAPI()


class Login(BaseModel):
    username: str
    password: str


@mesh.ingress(forms)
class Forms:
    def __init__(self) -> None:
        self.logins = 0

    @forms.post("/login")
    async def login(self, form: Annotated[Login, Form()]) -> list[Any]:
        self.logins += 1
        return [form.username, self.logins]

    @forms.post("/bytes")
    def take_bytes(self, file: Annotated[bytes, File()]) -> int:
        return len(file)

    @forms.post("/upload")
    async def upload(self, files: list[UploadFile], token: Annotated[str, Form()]) -> dict[str, Any]:
        sizes = {file.filename: [file.content_type, len(await file.read())] for file in files}
        return {"token": token, "sizes": sizes}

    @forms.post("/sync-upload")
    def sync_upload(self, file: UploadFile) -> str:
        return f"{self.logins} {file.file.read(5).decode()}"


@pytest.fixture(scope="module")
def desk() -> Iterator[WebReplica]:
    with web_replica(Forms) as replica:
        yield replica


def test_forms(desk: WebReplica) -> None:
    assert answer(desk, "POST", "/login", data={"username": "alice", "password": "x y&ü"}) == (200, ["alice", 1])
    assert wrong_places(desk, "POST", "/login", data={"username": "alice"}) == [["body", "password"]]


def test_uploads(desk: WebReplica) -> None:
    """Large ones go through a file."""
    large = b"\x00\xff" * 1_000_000
    assert answer(desk, "POST", "/bytes", files={"file": large}) == (200, len(large))
    files = [("files", ("a.png", large, "image/png")), ("files", ("b.txt", b"hello", "text/plain"))]
    code, tree = answer(desk, "POST", "/upload", files=files, data={"token": "t1"})
    sizes = {"a.png": ["image/png", len(large)], "b.txt": ["text/plain", 5]}
    assert (code, tree) == (200, {"token": "t1", "sizes": sizes})
    assert wrong_places(desk, "POST", "/upload", files=files) == [["body", "token"]]
    assert ask(desk, "POST", "/sync-upload", files={"file": b"hello world"}).text.endswith('hello"')


def test_a_streamed_upload_is_read_as_it_comes(desk: WebReplica) -> None:
    """In pieces that break anywhere."""
    request = httpx.Request("POST", "http://test/bytes", files={"file": b"0123456789" * 100})
    body, headers = request.read(), {"content-type": request.headers["content-type"]}
    call = desk.start(is_streamed=True, path="/bytes", method="POST", headers=headers)
    for start in range(0, len(body), 37):
        call.push(body[start : start + 37])
    call.half_close()
    assert call.response().text == "1000"
