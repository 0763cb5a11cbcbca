"""The REST form of the protocol, as an ASGI application: `v2/...` below the route prefix of the deployment."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Any, Protocol
from urllib.parse import unquote

import grpc
import msgspec
from google.protobuf.json_format import MessageToDict

from mesh.exceptions import GrpcStatusError, MeshException
from mesh.inference.inference_failures import failure_text
from mesh.inference.model_run import ModelCode, run_model, served_model, stream_model
from mesh.inference.protocol.datatypes import TensorError
from mesh.inference.protocol.messages import (
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
)
from mesh.inference.rest_body import RestError, read_body
from mesh.inference.rest_events import send_events
from mesh.inference.rest_generate import read_generate, write_generate
from mesh.inference.rest_tensors import read_rest, split_body, write_rest
from mesh.web.asgi_types import ClientGoneError, Message, Receive, Scope, Send

_LENGTH_HEADER = b"inference-header-content-length"
_JSON, _BINARY = b"application/json", b"application/octet-stream"
_Code = grpc.StatusCode
_HTTP_STATUS = {
    _Code.CANCELLED: 499,
    _Code.INVALID_ARGUMENT: 400,
    _Code.DEADLINE_EXCEEDED: 504,
    _Code.NOT_FOUND: 404,
    _Code.ALREADY_EXISTS: 409,
    _Code.PERMISSION_DENIED: 403,
    _Code.RESOURCE_EXHAUSTED: 429,
    _Code.FAILED_PRECONDITION: 400,
    _Code.ABORTED: 409,
    _Code.OUT_OF_RANGE: 400,
    _Code.UNIMPLEMENTED: 501,
    _Code.UNAVAILABLE: 503,
    _Code.UNAUTHENTICATED: 401,
}
"""As google.rpc.Code has them; others are 500."""


class ServedInference(ModelCode, Protocol):
    """Implemented by inference_server."""

    async def ServerMetadata(self, request: ServerMetadataRequest) -> ServerMetadataResponse: ...

    async def ModelReady(self, request: ModelReadyRequest) -> ModelReadyResponse: ...

    async def ModelMetadata(self, request: ModelMetadataRequest) -> ModelMetadataResponse: ...


class InferenceRest:
    """The ASGI application of one InferenceServer."""

    def __init__(self, server: ServedInference) -> None:
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises what user code raises that is no status, behind the answer: it belongs into the log."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
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
            await _send_error(send, _HTTP_STATUS.get(error.code, 500), failure_text(error))
        except MeshException:
            raise  # the gateway has an answer for each
        except Exception as error:  # user code's
            await _send_error(send, 500, failure_text(error))
            raise

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        prefix = _segments(scope.get("root_path", ""))
        match segments := _segments(scope["raw_path"].decode("latin-1"))[len(prefix) :]:
            case ["v2"]:
                await self._get(scope, send, self._metadata)
            case ["v2", "health", "live" | "ready" as asked]:
                await self._get(scope, send, lambda: _ready(asked))
            case ["v2", "models", name] | ["v2", "models", name, "versions", _]:
                version = _version(segments)
                await self._get(scope, send, lambda: self._model(name, version))
            case ["v2", "models", name, "ready"] | ["v2", "models", name, "versions", _, "ready"]:
                version = _version(segments)
                await self._get(scope, send, lambda: self._model_ready(name, version))
            case ["v2", "models", name, "infer"] | ["v2", "models", name, "versions", _, "infer"]:
                _check_method(scope, "POST")
                await self._infer(name, _version(segments), scope, receive, send)
            case ["v2", "models", name, "generate"] | ["v2", "models", name, "versions", _, "generate"]:
                _check_method(scope, "POST")
                await self._generate(name, _version(segments), scope, receive, send)
            case ["v2", "models", name, "generate_stream"] | ["v2", "models", name, "versions", _, "generate_stream"]:
                _check_method(scope, "POST")
                responses = self._responses(name, _version(segments), scope, receive)
                await send_events(responses, name, send)
            case _:
                raise RestError(404, f"There is no {scope['path'][:200]!r}: the paths of inference begin with /v2.")

    async def _get(self, scope: Scope, send: Send, answer: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        _check_method(scope, "GET", "HEAD")
        await _send(send, 200, _JSON, [msgspec.json.encode(await answer())])

    async def _metadata(self) -> dict[str, Any]:
        return _as_dict(await self._server.ServerMetadata(ServerMetadataRequest()))

    async def _model(self, name: str, version: str) -> dict[str, Any]:
        found = await self._server.ModelMetadata(ModelMetadataRequest(name=name, version=version))
        tensors = {
            side: [{"name": each.name, "datatype": each.datatype, "shape": list(each.shape)} for each in each_side]
            for side, each_side in (("inputs", found.inputs), ("outputs", found.outputs))
        }
        versions = {"versions": list(found.versions)} if found.versions else {}
        properties = {"properties": dict(found.properties)} if found.properties else {}
        return {"name": found.name, **versions, "platform": found.platform, **tensors, **properties}

    async def _model_ready(self, name: str, version: str) -> dict[str, Any]:
        await self._server.ModelReady(ModelReadyRequest(name=name, version=version))
        return {"name": name, "ready": True}

    async def _infer(self, name: str, version: str, scope: Scope, receive: Receive, send: Send) -> None:
        model = await served_model(self._server, name, version)
        headers = dict(scope["headers"])
        body = await read_body(headers, receive)
        length = headers.get(_LENGTH_HEADER)
        asked = read_rest(name, version, *split_body(body, length and length.decode("latin-1")), model)
        outputs = await run_model(self._server, model, asked.request, asked.arrays)
        text, binary = write_rest(asked, outputs)
        if binary:
            await _send(send, 200, _BINARY, [text, *binary], [(_LENGTH_HEADER, b"%d" % len(text))])
        else:
            await _send(send, 200, _JSON, [text])

    async def _generate(self, name: str, version: str, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._responses(name, version, scope, receive)) as responses:
            only = await anext(responses, None)
            if only is None or await anext(responses, None) is not None:
                raise RestError(400, f"Model {name[:200]!r} does not answer with one response: use generate_stream.")
        await _send(send, 200, _JSON, [only])

    async def _responses(self, name: str, version: str, scope: Scope, receive: Receive) -> AsyncGenerator[bytes, None]:
        """Those of `generate_stream`, each as JSON."""
        model = await served_model(self._server, name, version)
        request, arrays = read_generate(name, version, await read_body(dict(scope["headers"]), receive), model)
        async with aclosing(stream_model(self._server, model, request, arrays)) as results:
            async for outputs in results:
                yield write_generate(request, outputs)


async def _ready(asked: str) -> dict[str, Any]:
    """A replica gets requests when it is ready."""
    return {asked: True}


def _segments(path: str) -> list[str]:
    """Decoded one by one: names may contain an encoded slash."""
    return [unquote(each) for each in path.strip("/").split("/") if each]


def _version(segments: list[str]) -> str:
    return segments[4] if segments[3:4] == ["versions"] else ""


def _as_dict(message: ServerMetadataResponse) -> dict[str, Any]:
    return MessageToDict(message, always_print_fields_with_no_presence=True)


def _check_method(scope: Scope, *allowed: str) -> None:
    if scope["method"] not in allowed:
        raise RestError(405, f"Use {allowed[0]} here.", [(b"allow", ", ".join(allowed).encode())])


async def _send_error(send: Send, status: int, text: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    await _send(send, status, _JSON, [msgspec.json.encode({"error": text})], headers)


async def _send(
    send: Send,
    status: int,
    content_type: bytes,
    body: list[bytes | memoryview],
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    length = b"%d" % sum(map(len, body))
    fields = [(b"content-type", content_type), (b"content-length", length), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body[0] if len(body) == 1 else b"".join(body)})


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message: Message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
