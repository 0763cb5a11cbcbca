"""ASGI applications of tests: endpoints of Starlette, middleware that streams, and a callable of no framework."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

import mesh
from mesh.context import current_request
from mesh.exceptions import BackPressureError
from tests.unit.web.web_calls import DEADLINE_S


class Seen:
    """What happened in user code. It is found by its module, so it is not a part of the pickles."""

    events: list[str] = []  # noqa: RUF012
    gate = threading.Event()


def seen() -> type[Seen]:
    from tests.unit.web import asgi_apps

    return asgi_apps.Seen


async def gate_open() -> None:
    assert await asyncio.to_thread(seen().gate.wait, DEADLINE_S)


async def echo(request: Request) -> StreamingResponse:
    return StreamingResponse(request.stream(), media_type="application/octet-stream")


async def count(request: Request) -> PlainTextResponse:
    total = 0
    async for piece in request.stream():
        await gate_open()
        total += len(piece)
    return PlainTextResponse(str(total))


async def numbers(request: Request) -> StreamingResponse:
    async def generate() -> AsyncIterator[str]:
        try:
            for number in range(int(request.query_params["to"])):
                yield f"{number},"
        except asyncio.CancelledError:
            seen().events.append("cancelled")
            raise
        if "fails" in request.query_params:
            raise ValueError("midway")
        if "waits" in request.query_params:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen().events.append("cancelled")
                raise

    return StreamingResponse(generate(), 206, {"x-kind": "numbers"}, "text/csv")


def sync_numbers(request: Request) -> StreamingResponse:
    return StreamingResponse((f"{number}," for number in range(3)), media_type="text/plain")


async def large(request: Request) -> PlainTextResponse:
    return PlainTextResponse(b"x" * int(request.query_params["size"]))


async def file(request: Request) -> FileResponse:
    return FileResponse(__file__)


async def in_background(request: Request) -> PlainTextResponse:
    async def work() -> None:
        await gate_open()
        seen().events.append("background")

    return PlainTextResponse("soon", background=BackgroundTask(work))


async def raw_in_child(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers from a task of its own, which then goes on."""

    async def answer_and_work() -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"soon"})
        await gate_open()
        seen().events.append("child")

    async with asyncio.TaskGroup() as group:
        group.create_task(answer_and_work())


async def hang(request: Request) -> None:
    seen().events.append("hanging")
    try:
        await asyncio.Event().wait()
    finally:
        seen().events.append("ended")


async def broken(request: Request) -> None:
    raise ValueError("no such number")


async def context(request: Request) -> PlainTextResponse:
    served = current_request()
    assert served is not None
    return PlainTextResponse(f"{served.request_id} {served.app} {request.client} {request.headers['x-a']}")


ROUTES = [
    Route("/echo", echo, methods=["POST"]),
    Route("/count", count, methods=["POST"]),
    Route("/numbers", numbers),
    Route("/sync", sync_numbers),
    Route("/large", large),
    Route("/file", file),
    Route("/background", in_background),
    Mount("/child", raw_in_child),
    Route("/hang", hang),
    Route("/broken", broken),
    Route("/context", context),
]

App = mesh.ingress(Starlette(routes=ROUTES))()


async def pass_on(request: Request, call_next: Any) -> Any:
    response = await call_next(request)
    response.headers["x-passed"] = "yes"
    return response


class PassOn(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        return await pass_on(request, call_next)


Passed = mesh.ingress(Starlette(routes=ROUTES, middleware=[Middleware(PassOn)]))()


async def raw_app(scope: Any, receive: Any, send: Any) -> None:
    """Any ASGI callable, without a lifespan."""
    assert scope["type"] == "http"
    match scope["path"]:
        case "/silent":
            return
        case "/late":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        case "/wrong":
            await send({"type": "http.response.body", "body": b"no head"})
        case "/unknown":
            await send({"type": "http.response.trailers"})
        case "/careless":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            with contextlib.suppress(TypeError):
                await send({"type": "http.response.body", "body": None})
        case "/empties":
            scope.clear()
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})
        case "/fills":
            scope.update(route=object(), fastapi="mine")
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})
        case "/full":
            raise BackPressureError(num_queued_requests=1, max_queued_requests=1)
        case "/exit":
            raise SystemExit(1)
        case "/disconnect":
            assert (await receive())["type"] == "http.request"
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})
            seen().events.append((await receive())["type"])
        case path:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Raw", b"1")]})
            await send({"type": "http.response.body", "body": path.encode()})


Raw = mesh.ingress(raw_app)()
