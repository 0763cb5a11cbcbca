"""A caller that writes whatever bytes a test has, and the service and replica it writes to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import grpc
import grpc.aio

from mesh.exceptions import MeshException
from mesh.link import frames
from mesh.link.link_stream import LINK_METHOD
from mesh.link.outgoing_call import CallRequest
from mesh.v1 import replica_pb2
from mesh.wire.endpoints import open_channel
from mesh.wire.payload import encode
from mesh.wire.request_context import RequestContext
from tests.unit.fakes.small_mesh import TOKEN, SmallReplica, on_io

DEADLINE_S = 30.0


class Service:
    """Echoes, hangs, or breaks, and counts the calls that hang."""

    def __init__(self) -> None:
        self.started = 0
        self.cancelled = 0

    async def __call__(self, value: Any = None) -> Any:
        return value

    async def hang(self) -> None:
        self.started += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    @property
    def broken(self) -> None:
        raise ValueError("this property is broken")


@contextmanager
def replica_of(target: object, limit: int = 10) -> Iterator[SmallReplica]:
    with patch("mesh.wire.mesh_token._token", TOKEN):
        replica = SmallReplica(target, limit)
        try:
            yield replica
        finally:
            replica.close()


class Peer:
    """A caller whose bytes the test chooses."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def write(self, *messages: bytes) -> None:
        for message in messages:
            await self._stream.write(message)

    async def read(self) -> list[replica_pb2.Frame]:
        data = await self._stream.read()
        return list(replica_pb2.Frames.FromString(data).frames) if isinstance(data, bytes) else []

    async def failure(self) -> tuple[grpc.StatusCode, str]:
        try:
            while await self.read():
                pass
        except grpc.aio.AioRpcError:
            pass
        return await self._stream.code(), await self._stream.details()


def converse(replica: SmallReplica, talk: Callable[[Peer], Any]) -> Any:
    """Run `talk` with a new peer of the replica; returns what it returns."""

    async def run() -> Any:
        async with asyncio.timeout(DEADLINE_S), open_channel(replica.info.address) as channel:
            stream = channel.stream_stream(LINK_METHOD)()
            try:
                return await talk(Peer(stream))
            finally:
                stream.cancel()

    return on_io(run())


def hello(replica: SmallReplica, **changes: Any) -> bytes:
    return hello_to(**{"replica_id": replica.replica_id, **changes})


def hello_to(**fields: Any) -> bytes:
    message = replica_pb2.Hello(**{"protocol_version": frames.PROTOCOL_VERSION, "token": TOKEN, **fields})
    return frames.pack(replica_pb2.Frame(hello=message))


def open_frame(call_id: int, method: str = "__call__", **options: Any) -> bytes:
    packed = frames.pack_open(call_id, CallRequest(method, encode(((), {})), RequestContext("id"), **options))
    assert isinstance(packed, bytes)
    return packed


def end_of(response: Any) -> Any:
    """The result of a call, or the error it ended with."""
    try:
        return response.result(timeout_s=DEADLINE_S)
    except MeshException as error:
        return error
