"""Owns a scrape: the metrics of all processes of this node, collected when somebody asks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import grpc.aio

from gateway.ops.metric_sums import Families, NodeSums, read_reply
from gateway.ops.node_peers import PeerClient
from mesh.v1 import control_pb2, telemetry_pb2
from mesh.wire import telemetry

logger = logging.getLogger("mesh.gateway")


class NodeMetrics:
    """Asks the processes of the node, all at once. I/O loop only."""

    def __init__(
        self,
        peers: Callable[[], Sequence[control_pb2.Peer]],
        client: PeerClient,
        applications: Callable[[], frozenset[str]],
        own: Callable[[], Families] = telemetry.collect,
    ) -> None:
        """`applications`: those that have series of their own."""
        self._peers = peers
        self._client = client
        self._applications = applications
        self._own = own
        self._sums = NodeSums()
        self._one_at_a_time = asyncio.Lock()

    async def scrape(self) -> Families:
        """The node's metrics. A process that does not answer in time keeps the counts it had at the last scrape."""
        async with self._one_at_a_time:
            peers = {peer.process_id: peer.address for peer in self._peers()}
            await self._client.keep_only(set(peers.values()))
            replies = await asyncio.gather(*map(self._ask, peers.values()))
            by_process = dict(zip(peers, replies, strict=True))
            # Thousands of additions: in a thread, so that the calls that this loop carries do not wait for them.
            return await asyncio.to_thread(self._add_up, by_process, self._applications())

    async def _ask(self, address: str) -> telemetry_pb2.MetricsReply | None:
        try:
            return await self._client.fetch(address)
        except grpc.aio.AioRpcError as error:
            logger.warning("the process at %s did not send its metrics: %s", address, error.details())
            return None

    def _add_up(self, replies: dict[str, telemetry_pb2.MetricsReply | None], applications: frozenset[str]) -> Families:
        self._sums.keep_only(applications)
        families = {each: None if reply is None else read_reply(reply) for each, reply in replies.items()}
        return self._sums.update(self._own(), families)
