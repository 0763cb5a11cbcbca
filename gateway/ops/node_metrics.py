"""A scrape: the metrics of all processes of this node, collected on request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import grpc.aio

from gateway.ops.metric_sums import Families, NodeSums, read_reply
from mesh.settings import settings
from mesh.v1 import control_pb2, telemetry_pb2
from mesh.wire import telemetry
from mesh.wire.endpoints import open_channel
from mesh.wire.mesh_token import token_metadata

logger = logging.getLogger("mesh.gateway")

_WARNINGS_MAX = 1_000
"""Metrics of different declarations that one gateway logs."""


class NodeMetrics:
    """The metrics of the node's processes, which are queried in parallel. I/O loop only."""

    def __init__(
        self,
        peers: Callable[[], Sequence[control_pb2.Peer]],
        applications: Callable[[], frozenset[str]],
        own: Callable[[], Families] = telemetry.collect,
    ) -> None:
        """`applications`: the names of those that have series of their own."""
        self._peers = peers
        self._client = _PeerClient()
        self._applications = applications
        self._own = own
        self._sums = NodeSums()
        self._warned: set[str] = set()
        """Names of metrics that are declared in two ways, each of which was logged."""
        self._one_at_a_time = asyncio.Lock()
        self._next: asyncio.Task[Families] | None = None
        """The scrape that waits for the present one to end; it ends by itself."""

    async def scrape(self) -> Families:
        """The node's metrics. A process that does not answer in time counts as it did at the last scrape.

        All that ask while a scrape runs share the next one.
        """
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._scrape(), name="scrape of the node")
        return await asyncio.shield(self._next)

    async def close(self) -> None:
        """Close all channels."""
        await self._client.keep_only(set())

    async def _scrape(self) -> Families:
        async with self._one_at_a_time:
            self._next = None
            peers = {peer.process_id: peer.address for peer in self._peers()}
            await self._client.keep_only(set(peers.values()))
            replies = await asyncio.gather(*map(self._fetch, peers.values()))
            by_process = dict(zip(peers, replies, strict=True))
            # These are thousands of additions: in a thread they do not delay the calls on this loop.
            families = await asyncio.to_thread(self._add_up, by_process, self._applications())
            self._warn_of_clashes()
            return families

    def _warn_of_clashes(self) -> None:
        for name, what in self._sums.clashes.items():
            if name not in self._warned and len(self._warned) < _WARNINGS_MAX:
                self._warned.add(name)
                logger.warning(
                    "metric %s: %s. Give it another name, or the same kind, tags and boundaries everywhere.", name, what
                )

    async def _fetch(self, address: str) -> telemetry_pb2.MetricsReply | None:
        try:
            return await self._client.fetch(address)
        except grpc.aio.AioRpcError as error:
            logger.warning("the process at %s did not send its metrics: %s", address, error.details())
            # The next attempt takes the present certificate, if links have TLS.
            await self._client.drop(address)
            return None

    def _add_up(self, replies: dict[str, telemetry_pb2.MetricsReply | None], applications: frozenset[str]) -> Families:
        self._sums.keep_only(applications)
        families = {each: None if reply is None else read_reply(reply) for each, reply in replies.items()}
        return self._sums.update(self._own(), families)


class _PeerClient:
    """One channel to each other process of the node. I/O loop only."""

    def __init__(self) -> None:
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def fetch(self, address: str) -> telemetry_pb2.MetricsReply:
        """Metrics of the process at "host:port". Raises grpc.aio.AioRpcError when it does not answer in time."""
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = open_channel(address)
        metrics = channel.unary_unary(
            "/mesh.v1.Process/Metrics",
            request_serializer=telemetry_pb2.MetricsRequest.SerializeToString,
            response_deserializer=telemetry_pb2.MetricsReply.FromString,
        )
        reply: telemetry_pb2.MetricsReply = await metrics(
            telemetry_pb2.MetricsRequest(), timeout=settings().process.scrape_timeout_s, metadata=token_metadata()
        )
        return reply

    async def drop(self, address: str) -> None:
        """Close the channel to an address, if there is one."""
        channel = self._channels.pop(address, None)
        if channel is not None:
            await channel.close()

    async def keep_only(self, addresses: set[str]) -> None:
        """Close the channels to all other addresses."""
        for address in self._channels.keys() - addresses:
            await self.drop(address)
