"""The links of one router: one to every listed replica, reconnected while it is listed. I/O loop only."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from mesh.link.caller_link import CallerLink, LinkObserver, LinkTarget
from mesh.link.frames import pack_hello
from mesh.routing.locality import Locality
from mesh.routing.places import Places
from mesh.routing.snapshot import ReplicaInfo, Snapshot
from mesh.settings import settings
from mesh.wire.io_thread import io_thread

logger = logging.getLogger("mesh")

_EXPECTED_MODELS_MAX = 64
_LOST = "the controller reports that its process or its node is gone"


@dataclass(frozen=True, slots=True)
class CallerIdentity:
    """What a caller's links say about its process, and the token that admits them."""

    process_id: str
    node_id: str
    zone: str
    token: bytes


class Endpoint:
    """A listed replica and its current link; a Candidate for the picker."""

    __slots__ = ("expected_models", "info", "is_load_fresh", "limit", "link", "task")

    def __init__(self, info: ReplicaInfo, limit: int) -> None:
        self.info = info
        self.limit = limit
        self.link: CallerLink | None = None
        self.task: asyncio.Task[None] | None = None
        self.expected_models: dict[str, None] = {}
        """Models that we sent calls for, oldest first, until the replica announces them."""
        self.is_load_fresh = False
        """The load has been reported since the last tick of the pool."""

    def __repr__(self) -> str:
        phase = self.link.phase.value if self.link is not None else "without link"
        return f"<Endpoint {self.info.replica_id} at {self.info.address}, {phase}>"

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
        """Note that a call for the model was sent there. Bounded, because clients may name models that do not exist."""
        self.expected_models[model_id] = None
        if len(self.expected_models) > _EXPECTED_MODELS_MAX:
            del self.expected_models[next(iter(self.expected_models))]

    def age_load(self) -> bool:
        """Halve the calls of others, unless they were reported just now. Returns whether there is more to halve.

        Nothing ages while the replica is full, because a full replica reports its next free place.
        """
        link = self.link
        if link is None or not link.others_ongoing or self.load >= self.limit:
            return False
        if not self.is_load_fresh:
            link.others_ongoing //= 2
        self.is_load_fresh = False
        return link.others_ongoing > 0

    def forget_expected(self) -> None:
        """Drop the expected models that the replica has announced."""
        if self.expected_models and self.link is not None:
            for model_id in self.link.model_ids:
                self.expected_models.pop(model_id, None)


class LinkPool:
    """One endpoint per listed replica, and those of them that can take calls.

    A timer ticks while there are loads to age: it costs a call nothing, and an idle pool has none.
    """

    def __init__(self, identity: CallerIdentity, observer: LinkObserver) -> None:
        self.identity = identity
        self._observer = observer
        self._endpoints: dict[str, Endpoint] = {}
        self._is_ticking = False
        self._draining: set[Endpoint] = set()
        """No longer listed, but their links still carry calls."""
        self.all: Locality[Endpoint] = Locality()
        """Usable endpoints."""
        self.local_first: tuple[Locality[Endpoint], ...] = (self.all,)
        """Usable endpoints on the same node, in the same zone, anywhere; without those that are empty or the same."""
        self.unlisted_at_s = float("inf")
        """time.monotonic() instant at which the list of replicas became empty; infinite while it is not."""

    def __repr__(self) -> str:
        return f"<LinkPool, listed: {len(self._endpoints)}, usable: {self.link_count}, draining: {len(self._draining)}>"

    def update(self, snapshot: Snapshot) -> None:
        """Connect to replicas that are new in the snapshot; drain the links of those that are not in it."""
        listed = {replica.replica_id: replica for replica in snapshot.replicas}
        for replica_id in self._endpoints.keys() - listed.keys():
            self._drain(self._endpoints.pop(replica_id))
        if snapshot.lost:
            self._close_lost(snapshot.lost)
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
        """Rebuild the localities of usable endpoints after a link became ready, began to drain or broke."""
        usable = [endpoint for endpoint in self._endpoints.values() if endpoint.is_usable]
        zone = self.identity.zone
        same_zone = [endpoint for endpoint in usable if zone and endpoint.info.zone == zone]
        same_node = [endpoint for endpoint in usable if endpoint.info.node_id == self.identity.node_id]
        self.all = Locality(usable, self.all)
        nearer = [endpoints for endpoints in (same_node, same_zone) if 0 < len(endpoints) < len(usable)]
        self.local_first = (*(Locality(endpoints, self.all) for endpoints in nearer), self.all)

    def record_result(self, link: CallerLink) -> None:
        """Remember that a result has just reported the load of the link's replica."""
        endpoint = self.endpoint_of(link)
        if endpoint is None:
            return
        self.record_load(endpoint)
        if self.all.remembers:
            for locality in self.local_first:
                locality.record_load(endpoint)

    def record_load(self, endpoint: Endpoint) -> None:
        """The replica has just reported its load."""
        endpoint.is_load_fresh = True
        if not self._is_ticking and endpoint.link is not None and endpoint.link.others_ongoing:
            self._start_ticking()

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

    def places(self) -> Places:
        """The places of the replicas and how many are taken. From any thread."""
        usable = self.all.candidates
        return Places(
            busy=sum(min(endpoint.load, endpoint.limit) for endpoint in usable),
            total=sum(endpoint.limit for endpoint in usable),
            connected=len(usable),
            listed=len(self._endpoints),
        )

    @property
    def is_empty(self) -> bool:
        """No replica is listed, and no link carries calls."""
        return not self._endpoints and not self._draining

    def close_if_idle(self, link: CallerLink) -> None:
        """Close the link if its replica is no longer listed and it carries no call."""
        if not self._draining or not link.is_idle:
            return
        for endpoint in self._draining:
            if endpoint.link is link and endpoint.task is not None:
                endpoint.task.cancel()

    def is_listed(self, endpoint: Endpoint) -> bool:
        return self._endpoints.get(endpoint.info.replica_id) is endpoint

    def close(self) -> Sequence[asyncio.Task[None]]:
        """Close all links. Returns their tasks, to be awaited."""
        tasks = [
            endpoint.task for endpoint in (*self._endpoints.values(), *self._draining) if endpoint.task is not None
        ]
        for task in tasks:
            task.cancel()
        self._endpoints.clear()
        self.refresh()
        return tasks

    def _start_ticking(self) -> None:
        self._is_ticking = True
        io_thread().loop.call_later(settings().routing.load_half_life_s, self._tick)

    def _tick(self) -> None:
        self._is_ticking = False
        # A list, because each load has to age, also when an earlier one has more to do.
        if any([endpoint.age_load() for endpoint in self.all.candidates]):
            self._start_ticking()

    def _drain(self, endpoint: Endpoint) -> None:
        """Let the link of a replica that is no longer listed finish its calls, then close it."""
        if endpoint.link is not None and not endpoint.link.is_idle:
            self._draining.add(endpoint)
            endpoint.link.stop_accepting()
        elif endpoint.task is not None:
            endpoint.task.cancel()

    def _close_lost(self, lost: frozenset[str]) -> None:
        """Fail the calls of lost replicas now: the connection to a vanished host looks alive for some seconds."""
        for endpoint in list(self._draining):
            if endpoint.info.replica_id in lost and endpoint.task is not None:
                endpoint.task.cancel(_LOST)

    async def _keep_link(self, endpoint: Endpoint) -> None:
        replica_id = endpoint.info.replica_id
        delay_s = settings().link.reconnect_delay_min_s
        try:
            while self.is_listed(endpoint):
                if await self._run_link(endpoint):
                    delay_s = settings().link.reconnect_delay_min_s
                    if self.is_listed(endpoint):
                        logger.info("reconnecting to replica %s: the link broke, the replica is listed", replica_id)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, settings().link.reconnect_delay_max_s)
        finally:
            self._draining.discard(endpoint)

    async def _run_link(self, endpoint: Endpoint) -> bool:
        """Run one link from connecting to its end. Returns whether the replica accepted it."""
        identity, replica = self.identity, endpoint.info
        target = LinkTarget(replica.replica_id, replica.address, pack_hello(replica.replica_id, identity.token))
        link = endpoint.link = CallerLink(target, self._observer)
        try:
            return await link.run()
        except Exception:
            # Reconnect even after a defect in the link's code.
            logger.exception("the link to replica %s failed", replica.replica_id)
            return False
        finally:
            endpoint.link = None
