"""The REST form of the protocol, as an ASGI application: `v2/...` below the route prefix of the deployment."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from mesh.exceptions import GrpcStatusError, MeshException
from mesh.inference.inference_failures import failure_text
from mesh.inference.model_run import ModelCode, run_model, served_model, stream_model
from mesh.inference.protocol.datatypes import TensorError, shown
from mesh.inference.protocol.messages import (
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
)
from mesh.inference.protocol.tensor_contents import Buffer
from mesh.inference.rest_body import Fields, RestError, header_value, read_body
from mesh.inference.rest_events import send_events
from mesh.inference.rest_generate import read_generate, write_generate
from mesh.inference.rest_paths import RestPath, read_path
from mesh.inference.rest_tensors import json_length, read_rest, split_body, write_rest
from mesh.rpc.status_codes import HTTP_STATUS
from mesh.web.asgi_types import ClientGoneError, Message, Receive, Scope, Send

_LENGTH_HEADER = b"inference-header-content-length"
_JSON, _BINARY = b"application/json", b"application/octet-stream"
_READ, _WRITE = ("GET", "HEAD"), ("POST",)


class ServedInference(ModelCode, Protocol):
    """Implemented by inference_server."""

    async def ServerMetadata(self, request: ServerMetadataRequest) -> ServerMetadataResponse: ...

    async def ModelReady(self, request: ModelReadyRequest) -> ModelReadyResponse: ...

    async def ModelMetadata(self, request: ModelMetadataRequest) -> ModelMetadataResponse: ...


@dataclass(frozen=True, slots=True)
class RestRequest:
    """One request, and the way back to its client."""

    path: RestPath
    headers: Fields
    receive: Receive
    send: Send

    async def body(self, aligned_byte: int = 0) -> Buffer:
        return await read_body(self.headers, self.receive, aligned_byte)

    async def answer(self, value: Any) -> None:
        await _send(self.send, 200, _JSON, [msgspec.json.encode(value)])


class InferenceRest:
    """The ASGI application of one InferenceServer."""

    def __init__(self, server: ServedInference) -> None:
        self._server = server
        self._routes: dict[str, tuple[tuple[str, ...], Callable[[RestRequest], Awaitable[None]]]] = {
            "v2": (_READ, self._metadata),
            "v2/health/live": (_READ, self._live),
            "v2/health/ready": (_READ, self._ready),
            "v2/models/{model}": (_READ, self._model),
            "v2/models/{model}/ready": (_READ, self._model_ready),
            "v2/models/{model}/infer": (_WRITE, self._infer),
            "v2/models/{model}/generate": (_WRITE, self._generate),
            "v2/models/{model}/generate_stream": (_WRITE, self._generate_stream),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers first, then raises what user code raised unless that was a status: the replica logs it."""
        if scope["type"] == "lifespan":
            await _live_as_long_as_the_replica(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        try:
            await self._answer(scope, receive, send)
        except ClientGoneError:
            return
        except RestError as error:
            await _send_error(send, error.status, str(error), error.headers)
        except TensorError as error:
            await _send_error(send, 400, str(error))
        except GrpcStatusError as error:
            await _send_error(send, HTTP_STATUS[error.code.value[0]], failure_text(error))
        except MeshException:
            raise  # the gateway has an answer for each
        except Exception as error:  # user code's
            await _send_error(send, 500, failure_text(error))
            raise

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = read_path(scope)
        methods, handler = self._routes.get(path.route, ((), None))
        if handler is None:
            there = ", ".join(self._routes)
            raise RestError(404, f"There is no {scope['path'][:200]!r}. The paths of inference are {there}.")
        path.mark(scope)
        if scope["method"] not in methods:
            raise RestError(405, f"Use {methods[0]} here.", [(b"allow", ", ".join(methods).encode())])
        await handler(RestRequest(path, scope["headers"], receive, send))

    async def _live(self, request: RestRequest) -> None:
        await request.answer({"live": True})

    async def _ready(self, request: RestRequest) -> None:
        """A replica gets requests when it is ready."""
        await request.answer({"ready": True})

    async def _metadata(self, request: RestRequest) -> None:
        found = await self._server.ServerMetadata(ServerMetadataRequest())
        await request.answer({"name": found.name, "version": found.version, "extensions": list(found.extensions)})

    async def _model(self, request: RestRequest) -> None:
        path = request.path
        found = await self._server.ModelMetadata(ModelMetadataRequest(name=path.model, version=path.version))
        tensors = {
            side: [{"name": each.name, "datatype": each.datatype, "shape": list(each.shape)} for each in each_side]
            for side, each_side in (("inputs", found.inputs), ("outputs", found.outputs))
        }
        versions = {"versions": list(found.versions)} if found.versions else {}
        properties = {"properties": dict(found.properties)} if found.properties else {}
        await request.answer({"name": found.name, **versions, "platform": found.platform, **tensors, **properties})

    async def _model_ready(self, request: RestRequest) -> None:
        path = request.path
        found = await self._server.ModelReady(ModelReadyRequest(name=path.model, version=path.version))
        if not found.ready:
            await served_model(self._server, path.model, path.version)  # raises and says what is not there
            raise RestError(404, f"Model {shown(path.model)} is not ready.")
        await request.answer({"name": path.model, "ready": True})

    async def _infer(self, request: RestRequest) -> None:
        path = request.path
        model = await served_model(self._server, path.model, path.version)
        length = header_value(request.headers, _LENGTH_HEADER) or None
        body = await request.body(json_length(length) or 0)
        asked = read_rest(path.model, path.version, *split_body(body, length), model)
        outputs = await run_model(self._server, model, asked.request, asked.arrays)
        text, binary = write_rest(asked, outputs)
        if binary:
            await _send(request.send, 200, _BINARY, [text, *binary], [(_LENGTH_HEADER, b"%d" % len(text))])
        else:
            await _send(request.send, 200, _JSON, [text])

    async def _generate(self, request: RestRequest) -> None:
        async with aclosing(self._responses(request)) as responses:
            only = await anext(responses, None)
            if only is None or await anext(responses, None) is not None:
                name = shown(request.path.model)
                raise RestError(400, f"Model {name} does not answer with one response: use generate_stream.")
        await _send(request.send, 200, _JSON, [only])

    async def _generate_stream(self, request: RestRequest) -> None:
        await send_events(self._responses(request), request.path.model, request.send)

    async def _responses(self, request: RestRequest) -> AsyncGenerator[bytes, None]:
        """Each as JSON."""
        path = request.path
        model = await served_model(self._server, path.model, path.version)
        asked, arrays = read_generate(path.model, path.version, await request.body(), model)
        async with aclosing(stream_model(self._server, model, asked, arrays)) as results:
            async for outputs in results:
                yield write_generate(asked, outputs)


async def _send_error(send: Send, status: int, text: str, headers: Fields = ()) -> None:
    await _send(send, status, _JSON, [msgspec.json.encode({"error": text})], headers)


async def _send(
    send: Send,
    status: int,
    content_type: bytes,
    body: list[bytes | memoryview],
    headers: Fields = (),
) -> None:
    length = b"%d" % sum(map(len, body))
    fields = [(b"content-type", content_type), (b"content-length", length), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body[0] if len(body) == 1 else b"".join(body)})


async def _live_as_long_as_the_replica(receive: Receive, send: Send) -> None:
    while True:
        message: Message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
