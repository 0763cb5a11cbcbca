"""Clients of every dialect that calls typed methods: the same call made with each, and what each of them saw."""

from __future__ import annotations

import asyncio
import contextlib
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import grpc
import httpx
import pytest
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.web_rpc.base64_pieces import Base64Pieces
from gateway.web_rpc.envelope_reader import envelope
from tests.unit.protos.shop_pb2 import Item

Metadata = tuple[tuple[str, str | bytes], ...]
_LIMIT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class TypedCall:
    """A call as its client makes it."""

    path: str
    requests: tuple[Item, ...]
    streams_request: bool = False
    streams_response: bool = False
    metadata: Metadata = ()
    timeout_s: float | None = None


@dataclass
class Seen:
    """What a client saw. Metadata are those of user code, sorted; None where the dialect cannot carry them."""

    code: int = 0
    message: str = ""
    responses: list[Item] = field(default_factory=list)
    initial: list[tuple[str, str | bytes]] | None = None
    trailing: list[tuple[str, str | bytes]] | None = None
    details: list[ErrorInfo] = field(default_factory=list)

    def read_details(self, metadata: Any) -> None:
        """From trailing metadata."""
        serialised = next((value for key, value in metadata if key == "grpc-status-details-bin"), b"")
        status = Status.FromString(serialised)
        assert not serialised or (status.code, status.message) == (self.code, self.message)
        self.details = [unpacked(each) for each in status.details]


def unpacked(detail: Any) -> ErrorInfo:
    info = ErrorInfo()
    assert detail.Unpack(info)
    return info


Client = Callable[[int, TypedCall], Awaitable[Seen]]
"""Makes a call at a port."""


# ---- gRPC ------------------------------------------------------------------------------------------------------------


async def by_grpc(port: int, call: TypedCall) -> Seen:
    """The stock client."""
    options = [("grpc.enable_retries", 0)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        kinds = {
            (False, False): channel.unary_unary,
            (False, True): channel.unary_stream,
            (True, False): channel.stream_unary,
            (True, True): channel.stream_stream,
        }
        multi = kinds[call.streams_request, call.streams_response](call.path, Item.SerializeToString, Item.FromString)
        request = iter(call.requests) if call.streams_request else call.requests[0]
        rpc = multi(request, metadata=call.metadata, timeout=call.timeout_s)
        seen = Seen()
        try:
            if call.streams_response:
                async for each in rpc:
                    seen.responses.append(each)
            else:
                seen.responses.append(await rpc)
        except grpc.aio.AioRpcError:
            pass
        seen.code = (await rpc.code()).value[0]
        seen.message = "" if seen.code == 0 else await rpc.details()
        # This client may lose those of a stream whose status comes with them; the one with threads does not.
        if seen.responses or not call.streams_response:
            seen.initial = own(await rpc.initial_metadata())
        seen.trailing = own(await rpc.trailing_metadata())
        seen.read_details(await rpc.trailing_metadata())
        return seen


# ---- gRPC-Web --------------------------------------------------------------------------------------------------------


async def by_grpc_web(port: int, call: TypedCall) -> Seen:
    """Frames by hand."""
    return await _by_grpc_web(port, call, is_text=False)


async def by_grpc_web_text(port: int, call: TypedCall) -> Seen:
    """The same as base64."""
    return await _by_grpc_web(port, call, is_text=True)


async def _by_grpc_web(port: int, call: TypedCall, *, is_text: bool) -> Seen:
    body = envelope(call.requests[0].SerializeToString())
    kind = "application/grpc-web-text" if is_text else "application/grpc-web+proto"
    headers = [("content-type", kind), ("x-grpc-web", "1"), *_texts(call.metadata)]
    if call.timeout_s is not None:
        headers.append(("grpc-timeout", f"{round(call.timeout_s * 1000)}m"))
    answer = await _post(port, call.path, headers, b64encode(body) if is_text else body)
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    data = answer.content
    if is_text:
        pieces = Base64Pieces()
        data = pieces.feed(data)
        pieces.end()
    seen = Seen(initial=own(_entries(answer.headers.multi_items())))
    for flags, message in _frames(data):
        if flags & 0x80:
            lines = [line.partition(":")[::2] for line in message.decode().split("\r\n") if line]
            trailers = dict(lines)
            seen.code = int(trailers["grpc-status"])
            seen.message = unquote(trailers.get("grpc-message", ""))
            seen.trailing = own(_entries(lines))
            seen.read_details(_entries(lines))
        else:
            seen.responses.append(Item.FromString(message))
    return seen


# ---- Connect ---------------------------------------------------------------------------------------------------------


def by_connect(codec: str, *, uses_get: bool = False) -> Client:
    """The client of PyPI, over HTTP/2 for streams of requests."""

    async def call_it(port: int, call: TypedCall) -> Seen:
        return await by_connectrpc(port, call, "CONNECT", codec, uses_get=uses_get)

    return call_it


async def by_connectrpc(
    port: int, call: TypedCall, protocol: str, codec: str = "proto", *, uses_get: bool = False
) -> Seen:
    """The same client can speak gRPC and gRPC-Web."""
    reason = "connectrpc, the client of the Connect protocol, is not installed: `make setup` installs it"
    pytest.importorskip("connectrpc", reason=reason)
    from connectrpc.client import ConnectClient, ResponseMetadata
    from connectrpc.compat import google_protobuf_binary_codec, google_protobuf_json_codec
    from connectrpc.errors import ConnectError
    from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
    from connectrpc.protocol import ProtocolType
    from pyqwest import Client as HttpClient
    from pyqwest import HTTPTransport, HTTPVersion

    service, _, name = call.path[1:].partition("/")
    level = IdempotencyLevel.NO_SIDE_EFFECTS if uses_get else IdempotencyLevel.UNKNOWN
    kind = {
        (False, False): StreamType.UNARY,
        (False, True): StreamType.SERVER_STREAM,
        (True, False): StreamType.CLIENT_STREAM,
        (True, True): StreamType.BIDI_STREAM,
    }[call.streams_request, call.streams_response]
    method = MethodInfo(
        name=name, service_name=service, input=Item, output=Item, stream_type=kind, idempotency_level=level
    )
    version = HTTPVersion.HTTP2 if call.streams_request or protocol == "GRPC" else HTTPVersion.HTTP1
    client = ConnectClient(
        f"http://127.0.0.1:{port}",
        codec=google_protobuf_json_codec() if codec == "json" else google_protobuf_binary_codec(),
        protocol=ProtocolType[protocol],
        timeout_ms=None if call.timeout_s is None else round(call.timeout_s * 1000),
        http_client=HttpClient(HTTPTransport(http_version=version)),
    )

    async def requests() -> AsyncIterator[Item]:
        for each in call.requests:
            yield each

    seen = Seen()
    options: dict[str, Any] = {"method": method, "headers": dict(_texts(call.metadata))}
    with ResponseMetadata() as metadata:
        try:
            if call.streams_response:
                execute = client.execute_bidi_stream if call.streams_request else client.execute_server_stream
                argument = requests() if call.streams_request else call.requests[0]
                async for each in execute(request=argument, **options):
                    seen.responses.append(each)
            elif call.streams_request:
                seen.responses.append(await client.execute_client_stream(request=requests(), **options))
            else:
                seen.responses.append(await client.execute_unary(request=call.requests[0], **options, use_get=uses_get))
        except ConnectError as error:
            seen.code = getattr(grpc.StatusCode, error.code.name.replace("CANCELED", "CANCELLED")).value[0]
            seen.message = error.message
            seen.details = [ErrorInfo.FromString(each.message_bytes) for each in error.details]
    is_trailers_only = protocol == "GRPC" and not seen.responses
    # This client takes the trailers of such an answer for its headers too.
    seen.initial = None if is_trailers_only else own(_entries(metadata.headers.allitems()))
    seen.trailing = own(_entries(metadata.trailers.allitems()))
    return seen


# ---- JSON ------------------------------------------------------------------------------------------------------------


async def by_json(port: int, call: TypedCall) -> Seen:
    """As curl does it. A stream is an array, whose last element is the status if the call fails."""
    headers = [("content-type", "application/json"), *_texts(call.metadata), *_grpc_timeout(call)]
    if call.streams_request:
        body = json.dumps([json_format.MessageToDict(each) for each in call.requests]).encode()
    else:
        body = json_format.MessageToJson(call.requests[0]).encode()
    answer = await _post(port, call.path, headers, body)
    tree = json.loads(answer.content)
    seen = Seen()
    _read_json(seen, tree if call.streams_response and isinstance(tree, list) else [tree])
    return seen


async def by_lines(port: int, call: TypedCall) -> Seen:
    """Every message is a line, in both directions."""
    body = b"".join(_json_line(each) for each in call.requests)
    return await _by_json_stream(port, call, body, "application/x-ndjson")


async def by_events(port: int, call: TypedCall) -> Seen:
    """The response as server-sent events, as a page reads it."""
    body = json_format.MessageToJson(call.requests[0]).encode()
    return await _by_json_stream(port, call, body, "text/event-stream")


async def _by_json_stream(port: int, call: TypedCall, body: bytes, accept: str) -> Seen:
    kind = "application/x-ndjson" if call.streams_request else "application/json"
    headers = [("content-type", kind), ("accept", accept), *_texts(call.metadata), *_grpc_timeout(call)]
    answer = await _post(port, call.path, headers, body)
    seen = Seen()
    if not call.streams_response or answer.status_code != 200:
        _read_json(seen, [json.loads(answer.content)])
        return seen
    assert answer.headers["content-type"].startswith(accept)
    lines = answer.text.split("\n")
    if accept == "text/event-stream":
        events = answer.text.removesuffix("\n\n").split("\n\n")
        assert ("event: end" in events[-1]) is ("event: error" not in events[-1]), "a stream says how it ended"
        events = [each for each in events if "event: end" not in each]
        lines = [line.removeprefix("data:") for each in events for line in each.split("\n") if line.startswith("data:")]
    _read_json(seen, [json.loads(line) for line in lines if line.strip()])
    return seen


# ---- WebSockets ------------------------------------------------------------------------------------------------------


def by_websocket(codec: str) -> Client:
    """Messages as JSON text, or as binary Protobuf."""

    async def call_it(port: int, call: TypedCall) -> Seen:
        headers = [*_texts(call.metadata), *_grpc_timeout(call)]
        url = f"ws://127.0.0.1:{port}{call.path}"
        seen = Seen()
        try:
            client = await connect(url, additional_headers=headers, open_timeout=_LIMIT_S, proxy=None)
        except InvalidStatus as error:
            _read_json(seen, [json.loads(error.response.body)])
            return seen
        async with client:
            try:
                for each in call.requests:
                    is_json = codec == "json"
                    await client.send(_json_line(each).decode() if is_json else each.SerializeToString())
                if call.streams_request:
                    await client.send("")
            except ConnectionClosed:
                pass  # the call has ended already
            with contextlib.suppress(ConnectionClosed):
                while True:
                    message = await asyncio.wait_for(client.recv(), _LIMIT_S)
                    if isinstance(message, bytes):
                        seen.responses.append(Item.FromString(message))
                    else:
                        _read_json(seen, [json.loads(message)])
            assert client.close_code == (4000 + seen.code if seen.code else 1000)
        return seen

    return call_it


# ---- Inside ----------------------------------------------------------------------------------------------------------


def _json_line(message: Item) -> bytes:
    return json.dumps(json_format.MessageToDict(message)).encode() + b"\n"


def _read_json(seen: Seen, trees: list[Any]) -> None:
    for each in trees:
        if "error" in each or "code" in each:
            status = each.get("error", each)
            seen.code, seen.message = status["code"], status.get("message", "")
            seen.details = [unpacked(json_format.ParseDict(detail, AnyMessage())) for detail in status["details"]]
        else:
            seen.responses.append(json_format.ParseDict(each, Item()))


def _grpc_timeout(call: TypedCall) -> list[tuple[str, str]]:
    return [] if call.timeout_s is None else [("grpc-timeout", f"{round(call.timeout_s * 1000)}m")]


def own(metadata: Any) -> list[tuple[str, str | bytes]]:
    """The entries that user code sent: their names begin with "x-own"."""
    return sorted(((key, value) for key, value in metadata or () if key.startswith("x-own")), key=repr)


async def _post(port: int, path: str, headers: list[tuple[str, str]], body: bytes) -> httpx.Response:
    async with httpx.AsyncClient(timeout=_LIMIT_S, verify=False) as client:
        return await client.post(f"http://127.0.0.1:{port}{path}", headers=headers, content=body)


def _texts(metadata: Metadata) -> list[tuple[str, str]]:
    return [(key, value if isinstance(value, str) else b64encode(value).decode()) for key, value in metadata]


def _entries(fields: Any) -> list[tuple[str, str | bytes]]:
    """Header fields, or lines of trailers, as metadata."""
    entries: list[tuple[str, str | bytes]] = []
    for key, value in fields:
        is_binary = key.endswith("-bin")
        entries.append((key, b64decode(value + "=" * (-len(value) % 4)) if is_binary else value))
    return entries


def _frames(data: bytes) -> list[tuple[int, bytes]]:
    frames = []
    while data:
        end = 5 + int.from_bytes(data[1:5], "big")
        frames.append((data[0], data[5:end]))
        data = data[end:]
    return frames
