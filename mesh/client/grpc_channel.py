"""The connection of a client to the controller: looked up in the cluster's KV, and looked up again after a break."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import grpc.aio
from google.protobuf.message import Message

from mesh.cluster import ray_core
from mesh.cluster.keys import CONTROLLER_ADDRESS_KEY, CONTROLLER_FAILURE_KEY
from mesh.wire.blocking_work import Work, run_blocking
from mesh.wire.endpoints import open_channel
from mesh.wire.link_tls import link_tls
from mesh.wire.mesh_token import renew_token, token_metadata

_FAILURE_TIMEOUT_S = 2.0
"""How long the look-up of a failed start of the controller may take."""


class ControllerNotReadyError(Exception):
    """The controller has not published its address or token yet."""


class GrpcChannel:
    """Finds the controller in the cluster's KV and keeps one gRPC channel to it."""

    def __init__(self) -> None:
        self._channel: grpc.aio.Channel | None = None

    def __repr__(self) -> str:
        return f"GrpcChannel({'closed' if self._channel is None else 'open'})"

    async def call(self, method: str, request: Message, reply: type[Message], timeout_s: float) -> Message:
        try:
            async with asyncio.timeout(timeout_s):
                channel, metadata = await self._looked_up()
        except TimeoutError as error:
            raise ControllerNotReadyError("the cluster's KV, which holds its address, does not answer") from error
        rpc: Any = channel.unary_unary(
            f"/mesh.v1.Control/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=reply.FromString,
        )
        try:
            return cast(Message, await rpc(request, timeout=timeout_s, metadata=metadata))
        except (asyncio.CancelledError, grpc.aio.UsageError):
            if self._channel is channel:
                raise
            # A call of another thread lost the controller and closed the shared channel.
            raise ControllerNotReadyError("the connection was closed") from None

    async def close(self) -> None:
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close()

    async def start_failure(self) -> str:
        try:
            async with asyncio.timeout(_FAILURE_TIMEOUT_S):
                failure = await run_blocking(Work.LOOK_UP, ray_core.kv_get, CONTROLLER_FAILURE_KEY)
        except TimeoutError:
            return ""
        return f"its start fails: {failure.decode()}" if failure else ""

    async def _looked_up(self) -> tuple[grpc.aio.Channel, Sequence[tuple[str, bytes]]]:
        channel = self._channel
        try:
            if channel is None:
                channel = self._channel = await _connect()
                # The mesh may have been started again, with another token.
                await run_blocking(Work.LOOK_UP, renew_token)
            return channel, await run_blocking(Work.LOOK_UP, token_metadata)
        except LookupError as error:
            raise ControllerNotReadyError("it has not created its token yet") from error


async def _connect() -> grpc.aio.Channel:
    address = await run_blocking(Work.LOOK_UP, ray_core.kv_get, CONTROLLER_ADDRESS_KEY)
    if address is None:
        raise ControllerNotReadyError("it is still starting")
    await run_blocking(Work.FILES, link_tls)
    return open_channel(address.decode())
