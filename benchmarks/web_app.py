"""The ASGI application that every system serves; on its own it is the system "uvicorn".

`python -m benchmarks.web_app` serves it by uvicorn in one process, as its documentation recommends, and prints where.
"""

import os
import socket
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

CHUNKS = 50
CHUNK = bytes(100)


async def noop(request: Request) -> Response:
    return PlainTextResponse("ok")


async def echo(request: Request) -> Response:
    return Response(await request.body())


async def stream(request: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(CHUNKS):
            yield CHUNK

    return StreamingResponse(chunks())


async def messages(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_bytes(await websocket.receive_bytes())
    except WebSocketDisconnect:
        return


async def pid(request: Request) -> Response:
    return PlainTextResponse(str(os.getpid()))


APP = Starlette(
    routes=[
        Route("/noop", noop),
        Route("/echo", echo, methods=["POST"]),
        Route("/stream", stream),
        Route("/pid", pid),
        WebSocketRoute("/messages", messages),
    ]
)


def serve() -> None:
    # Not at the top: replicas of the mesh and of Ray Serve import the application only.
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(f"127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(APP, log_level="warning", access_log=False)).run(sockets=[listener])


if __name__ == "__main__":
    serve()
