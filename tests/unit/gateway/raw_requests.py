"""Requests of every dialect as bytes on a socket, and sockets that a hostile client opens."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass

from websockets.frames import Opcode

from mesh.link.outgoing_call import OutgoingCall
from mesh.wire.web_messages import encode_accept
from tests.unit.fakes.http1_ends import answers
from tests.unit.fakes.shop_routes import EveryDialect
from tests.unit.gateway.fakes import FakeRouter, item, until

CONNECT, CONNECT_STREAM = "application/proto", "application/connect+proto"
GRPC_WEB, JSON, LINES = "application/grpc-web+proto", "application/json", "application/x-ndjson"


def post(path: str, body: bytes, content_type: str, *lines: str, length: int | None = None) -> bytes:
    """A request; its connection is closed behind the answer. `length`: what the head says of the body."""
    fields = [f"content-type: {content_type}", f"content-length: {len(body) if length is None else length}", *lines]
    head = [f"POST {path} HTTP/1.1", "host: a", "connection: close", *fields, "", ""]
    return "\r\n".join(head).encode() + body


async def answer_to(gateway: EveryDialect, data: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to what is sent, as far as the gateway takes it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(data)
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.transport.abort()
    status, _, body = answers(answer)[-1]
    return status, body


def reset(writer: asyncio.StreamWriter) -> None:
    """Break the connection, whatever waits on the way to the gateway."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def frame(opcode: int, data: bytes = b"", *, ends: bool = True, is_compressed: bool = False, size: int = -1) -> bytes:
    """As a client sends it, with a mask of zeros. `size`: what the head says of the length."""
    first = opcode | ends << 7 | is_compressed << 6
    size = len(data) if size < 0 else size
    if size < 126:
        head = struct.pack(">BB", first, 0x80 | size)
    elif size < 65_536:
        head = struct.pack(">BBH", first, 0xFE, size)
    else:
        head = struct.pack(">BBQ", first, 0xFF, size)
    return head + bytes(4) + data


TEXT, BINARY, CONT, PING, CLOSE = Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING, Opcode.CLOSE


@dataclass
class OpenSocket:
    """A WebSocket that its application has accepted."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    call: OutgoingCall


async def open_socket(gateway: EveryDialect, router: FakeRouter, fields: bytes = b"") -> OpenSocket:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(HANDSHAKE + fields + b"\r\n")
    await until(lambda: router.calls, "the handshake")
    item(router.calls[0], encode_accept(None, []))
    await reader.readuntil(b"\r\n\r\n")
    return OpenSocket(reader, writer, router.calls[0])
