"""FastAPI routes on methods in a module whose annotations are text, and which replicas do not import (item 103)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Query, Request, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

import mesh
from mesh.wire.web_messages import encode_message
from tests.unit.web.web_calls import answer, web_replica, wrong_places

if TYPE_CHECKING:
    from decimal import Decimal

app = FastAPI()


class Item(BaseModel):
    name: str
    tags: list[str] = []


class Paging:
    def __init__(self, skip: Annotated[int, Query(ge=0)] = 0) -> None:
        self.skip = skip


class Checker:
    def __call__(self, request: Request) -> str:
        return request.url.path


def token_of(token: Annotated[str, Header()]) -> str:
    return token


async def user_of(token: Annotated[str, Depends(token_of)]) -> str:
    if token != "secret":
        raise HTTPException(401)
    return "alice"


@mesh.ingress(app)
class Shop:
    @app.get("/path")
    async def path(self, request: Request) -> str:
        return request.url.path

    @app.put("/items")
    def write(self, item: Item, more: list[Item], user: Annotated[str, Depends(user_of)]) -> dict[str, Any]:
        return {"item": item, "more": len(more), "user": user}

    @app.get("/paged")
    def paged(self, paging: Annotated[Paging, Depends()], checked: Annotated[str, Depends(Checker())]) -> list[Any]:
        return [paging.skip, checked]

    @app.delete("/items", status_code=204, response_model=None)
    def clear(self) -> None: ...

    @app.get("/stream")
    async def stream(self) -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            yield "a"
            yield "b"

        return StreamingResponse(pieces())

    @app.websocket("/echo")
    async def echo(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    def price(self) -> Decimal:
        """No endpoint; its annotation names nothing at run time."""
        raise NotImplementedError


def test_annotations_find_what_they_name() -> None:
    with web_replica(Shop) as shop:
        assert answer(shop, "GET", "/path") == (200, "/path")
        body = {"item": {"name": "pear"}, "more": [{"name": "fig"}]}
        written = {"item": {"name": "pear", "tags": []}, "more": 1, "user": "alice"}
        assert answer(shop, "PUT", "/items", json=body, headers={"token": "secret"}) == (200, written)
        assert wrong_places(shop, "PUT", "/items", json={"item": {}, "more": []}) == [
            ["header", "token"],
            ["body", "item", "name"],
        ]
        assert answer(shop, "GET", "/paged?skip=2") == (200, [2, "/paged"])
        assert wrong_places(shop, "GET", "/paged?skip=-1") == [["query", "skip"]]
        assert shop.ask("/items", method="DELETE").status == 204
        assert shop.ask("/stream").text == "ab"
        parameters = json.loads(shop.ask("/openapi.json").body)["paths"]["/path"]["get"]
        assert "parameters" not in parameters


def test_websockets_find_theirs() -> None:
    with web_replica(Shop) as shop:
        call = shop.connect("/echo")
        call.push(encode_message("hi"))
        assert call.ended().is_ok
        assert call.events()[1].text == "hi"
