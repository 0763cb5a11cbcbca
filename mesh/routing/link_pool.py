"""Owns the links of one router: one to every listed replica, reconnected while it is listed. I/O loop only."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from mesh.link.caller_link import CallerLink, LinkObserver, LinkTarget
from mesh.link.frames import pack_hello
from mesh.routing.locality import Locality
from mesh.routing.snapshot import ReplicaInfo, Snapshot
from mesh.settings import settings
from mesh.wire.io_thread import io_thread

logger = logging.getLogger("mesh")

_RECONNECT_DELAY_MIN_S = 0.02
_EXPECTED_MODELS_MAX = 64
_LOST = "the controller says that its process or its node is gone"


@dataclass(frozen=True, slots=True)
class CallerIdentity:
    """Who calls, from where, and with which token."""

    process_id: str
    node_id: str
    zone: str
    token: bytes
    gathers: bool = False
    """Its calls come one by one from independent clients (a gateway's): its links let batches grow under load."""


class Endpoint:
    """A listed replica and its current link; a Candidate for the picker."""

    __slots__ = ("expected_models", "info", "limit", "link", "task")

    def __init__(self, info: ReplicaInfo, limit: int) -> None:
        self.info = info
        self.limit = limit
        self.link: CallerLink | None = None
        self.task: asyncio.Task[None] | None = None
        self.expected_models: dict[str, None] = {}
        """Models that we sent calls for, oldest first, until the replica announces them."""

    @property
    def load(self) -> int:
        link = self.link
        return link.others_ongoing + link.ongoing if link is not None else self.limit

    def holds(self, model_id: str) -> bool:
        return model_id in self.expected_models or (self.link is not None and model_id in self.link.model_ids)

    @property
    def model_count(self) -> int:
        announced = len(self.link.model_ids) if self.link is not None else 0
        return max(announced, len(self.expected_models))

    @property
    def is_usable(self) -> bool:
        return self.link is not None and self.link.is_usable

    def expect_model(self, model_id: str) -> None:
        """A call for the model was sent there. Bounded: clients may name models that nobody ever loads."""
        self.expected_models[model_id] = None
        if len(self.expected_models) > _EXPECTED_MODELS_MAX:
            del self.expected_models[next(iter(self.expected_models))]

    def forget_expected(self) -> None:
        """What the replica announces needs no guess any more."""
        if self.expected_models and self.link is not None:
            for model_id in self.link.model_ids:
                self.expected_models.pop(model_id, None)


class LinkPool:
    """Keeps endpoints in step with snapshots and tells which of them can take calls."""

    def __init__(self, identity: CallerIdentity, observer: LinkObserver) -> None:
        self.identity = identity
        self._observer = observer
        self._endpoints: dict[str, Endpoint] = {}
        self._draining: set[Endpoint] = set()
        """Not listed any more, but their links still carry calls."""
        self.all: Locality[Endpoint] = Locality()
        """Usable endpoints."""
        self.local_first: tuple[Locality[Endpoint], ...] = (self.all,)
        """Usable endpoints on the same node, in the same zone, anywhere: as many localities as differ."""
        self.unlisted_at_s = float("inf")
        """time.monotonic() when the list of replicas was found to be empty; infinite where it is not."""

    def update(self, snapshot: Snapshot) -> None:
        listed = {replica.replica_id: replica for replica in snapshot.replicas}
        for replica_id in self._endpoints.keys() - listed.keys():
            self._leave(self._endpoints.pop(replica_id))
        if snapshot.lost:
            self._give_up(snapshot.lost)
        for replica_id, replica in listed.items():
            if replica_id not in self._endpoints:
                endpoint = self._endpoints[replica_id] = Endpoint(replica, snapshot.max_ongoing_requests)
                endpoint.task = io_thread().spawn(self._keep_link(endpoint), f"link-{replica_id}")
            self._endpoints[replica_id].limit = snapshot.max_ongoing_requests
        if listed:
            self.unlisted_at_s = float("inf")
        else:
            self.unlisted_at_s = min(self.unlisted_at_s, time.monotonic())
        self.refresh()

    def refresh(self) -> None:
        """Build the localities of usable endpoints anew: a link became ready, drains or broke."""
        usable = [endpoint for endpoint in self._endpoints.values() if endpoint.is_usable]
        zone = self.identity.zone
        same_zone = [endpoint for endpoint in usable if zone and endpoint.info.zone == zone]
        same_node = [endpoint for endpoint in usable if endpoint.info.node_id == self.identity.node_id]
        self.all = Locality(usable, self.all)
        nearer = [endpoints for endpoints in (same_node, same_zone) if 0 < len(endpoints) < len(usable)]
        self.local_first = (*(Locality(endpoints, self.all) for endpoints in nearer), self.all)

    def record_load(self, link: CallerLink) -> None:
        """A result has told the load of the link's replica."""
        endpoint = self.endpoint_of(link) if self.all.remembers else None
        if endpoint is not None:
            for locality in self.local_first:
                locality.record_load(endpoint)

    def endpoint_of(self, link: CallerLink) -> Endpoint | None:
        endpoint = self._endpoints.get(link.replica_id)
        return endpoint if endpoint is not None and endpoint.link is link else None

    @property
    def link_count(self) -> int:
        return len(self.all.candidates)

    @property
    def ongoing(self) -> int:
        endpoints = (*self._endpoints.values(), *self._draining)
        return sum(endpoint.link.ongoing for endpoint in endpoints if endpoint.link is not None)

    @property
    def is_empty(self) -> bool:
        """No replica is listed, and no link of one that was carries anything."""
        return not self._endpoints and not self._draining

    def close(self) -> Sequence[asyncio.Task[None]]:
        """Close all links; returns their tasks to wait for."""
        tasks = [
            endpoint.task for endpoint in (*self._endpoints.values(), *self._draining) if endpoint.task is not None
        ]
        for task in tasks:
            task.cancel()
        self._endpoints.clear()
        self.refresh()
        return tasks

    def _leave(self, endpoint: Endpoint) -> None:
        """The replica is no longer listed: its link carries the calls it has and is then closed."""
        if endpoint.link is not None and not endpoint.link.is_idle:
            self._draining.add(endpoint)
            endpoint.link.stop_accepting()
        elif endpoint.task is not None:
            endpoint.task.cancel()

    def _give_up(self, lost: frozenset[str]) -> None:
        """Their calls fail now: the connection to a host that has vanished would look alive for some seconds more."""
        for endpoint in list(self._draining):
            if endpoint.info.replica_id in lost and endpoint.task is not None:
                endpoint.task.cancel(_LOST)

    def close_if_idle(self, link: CallerLink) -> None:
        """A call has left the link: close it if it was the last one of a link that is not listed any more."""
        if not self._draining or not link.is_idle:
            return
        for endpoint in self._draining:
            if endpoint.link is link and endpoint.task is not None:
                endpoint.task.cancel()

    def is_listed(self, endpoint: Endpoint) -> bool:
        return self._endpoints.get(endpoint.info.replica_id) is endpoint

    async def _keep_link(self, endpoint: Endpoint) -> None:
        delay_s = _RECONNECT_DELAY_MIN_S
        try:
            while self.is_listed(endpoint):
                if await self._carry(endpoint):
                    delay_s = _RECONNECT_DELAY_MIN_S
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, settings().link.reconnect_delay_max_s)
        finally:
            self._draining.discard(endpoint)

    async def _carry(self, endpoint: Endpoint) -> bool:
        """One link from connecting to its end; returns whether the replica had accepted it."""
        identity, replica = self.identity, endpoint.info
        hello = pack_hello(identity.process_id, replica.replica_id, identity.token, gathers=identity.gathers)
        target = LinkTarget(replica.replica_id, replica.address, hello, identity.gathers)
        link = endpoint.link = CallerLink(target, self._observer)
        try:
            return await link.run()
        except Exception:
            # A defect in a link must not end the attempts to reach its replica.
            logger.exception("the link to replica %s failed", replica.replica_id)
            return False
        finally:
            endpoint.link = None
