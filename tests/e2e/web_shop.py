"""An application of FastAPI with what its tutorial shows, which handles and gRPC clients call too."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import BackgroundTasks, Cookie, Depends, FastAPI, Header, HTTPException, Query, Request, WebSocket
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import BaseModel, Field

import mesh
from mesh.context import current_request
from tests.e2e.gate import small
from tests.unit.protos import shop_pb2, shop_pb2_grpc

Handle = mesh.DeploymentHandle[Any]


class Image(BaseModel):
    url: str
    width: int = Field(gt=0)


class Item(BaseModel):
    name: str
    price: float = Field(gt=0)
    tags: set[str] = set()
    images: list[Image] = []


def common(skip: int = 0, limit: Annotated[int, Query(le=100)] = 10) -> dict[str, int]:
    return {"skip": skip, "limit": limit}


def user(x_token: Annotated[str | None, Header()] = None) -> str:
    if x_token != "secret":
        raise HTTPException(401, "Who are you?", {"www-authenticate": "Token"})
    return "alice"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
    app.state.greeting = "hello"
    yield {"from_lifespan": "state"}


app = FastAPI(title="Shop", lifespan=lifespan)


@app.middleware("http")
async def timed(request: Request, call_next: Any) -> Any:
    response = await call_next(request)
    response.headers["x-timed"] = "yes"
    return response


@app.exception_handler(ZeroDivisionError)
async def on_zero(request: Request, error: ZeroDivisionError) -> HTMLResponse:
    return HTMLResponse("<p>infinite</p>", 418)


@app.get("/health")
def health(request: Request) -> list[str]:
    return [request.app.state.greeting, request.state.from_lifespan]


@small(max_ongoing_requests=100)
@mesh.ingress(app)
class Shop(shop_pb2_grpc.ShopServicer):
    def __init__(self, gate: Handle) -> None:
        self.gate = gate
        self.items: dict[str, Item] = {}
        self.written: list[str] = []

    @app.get("/items")
    def list_items(self, page: Annotated[dict[str, int], Depends(common)]) -> list[Item]:
        return list(self.items.values())[page["skip"] :][: page["limit"]]

    @app.get("/items/{item_id}", response_model=Item, response_model_exclude_unset=True)
    async def read_item(self, item_id: str) -> Any:
        if item_id not in self.items:
            raise HTTPException(404, {"missing": item_id})
        return self.items[item_id]

    @app.put("/items/{item_id}", status_code=201)
    async def write_item(
        self, item_id: str, item: Item, who: Annotated[str, Depends(user)], tasks: BackgroundTasks
    ) -> dict[str, str]:
        self.items[item_id] = item
        tasks.add_task(self.written.append, f"{who}: {item.name}")
        return {"by": who}

    @app.get("/written")
    async def read_written(self) -> list[str]:
        return self.written

    @app.get("/cookie")
    async def cookie(self, ads: Annotated[str | None, Cookie()] = None) -> str | None:
        return ads

    @app.get("/divide")
    async def divide(self, by: int) -> float:
        return 1 / by

    @app.get("/where/")
    async def where(self, request: Request) -> list[str]:
        served = current_request()
        assert served is not None
        return [str(request.url), request.scope["root_path"], served.route, served.request_id]

    @app.get("/gate/{label}")
    async def wait(self, label: str) -> str:
        return str(await self.gate.wait.remote(label))

    @app.get("/stream/{label}")
    async def stream(self, label: str) -> StreamingResponse:
        async def items() -> AsyncIterator[str]:
            yield "first"
            yield await self.gate.wait.remote(label)

        return StreamingResponse(items(), 206, {"x-kind": "stream"}, "text/csv")

    @app.websocket("/ws/{room}")
    async def ws(self, websocket: WebSocket, room: str) -> None:
        if room == "closed":
            await websocket.close()
            return
        await websocket.accept("chat" if "chat" in websocket.scope["subprotocols"] else None)
        async for text in websocket.iter_text():
            if text == "bye":
                await websocket.close(4000, f"left {room}")
                return
            await websocket.send_text(f"{room}: {text}")
            await websocket.send_bytes(text.encode())

    async def sell(self, item_id: str) -> float:
        return self.items[item_id].price

    async def Price(self, request: Any, context: Any) -> Any:
        return shop_pb2.Item(name=request.name, amount=len(request.name))
