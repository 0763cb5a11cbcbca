"""Owns how the gateway reads the metrics of the other processes of its node."""

from __future__ import annotations

import grpc.aio

from mesh.settings import settings
from mesh.v1 import telemetry_pb2
from mesh.wire.endpoints import open_channel
from mesh.wire.mesh_token import token_metadata


class PeerClient:
    """Keeps one channel per process. I/O loop only."""

    def __init__(self) -> None:
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def fetch(self, address: str) -> telemetry_pb2.MetricsReply:
        """Metrics of the process at `address`. Raises grpc.aio.AioRpcError when it does not answer in time."""
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = open_channel(address)
        ask = channel.unary_unary(
            "/mesh.v1.Process/Metrics",
            request_serializer=telemetry_pb2.MetricsRequest.SerializeToString,
            response_deserializer=telemetry_pb2.MetricsReply.FromString,
        )
        reply: telemetry_pb2.MetricsReply = await ask(
            telemetry_pb2.MetricsRequest(), timeout=settings().process.scrape_timeout_s, metadata=token_metadata()
        )
        return reply

    async def keep_only(self, addresses: set[str]) -> None:
        """Close the channels to processes that went away."""
        for address in self._channels.keys() - addresses:
            await self._channels.pop(address).close()
