"""The links of one router: one to every listed replica, reconnected while it is listed. I/O loop only."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from mesh.link.caller_link import CallerLink, LinkObserver
from mesh.link.frames import pack_hello
from mesh.link.link_connection import run_link
from mesh.link.link_target import LinkTarget
from mesh.routing.canary_candidates import CanaryCandidates, divided
from mesh.routing.choice.locality import Locality
from mesh.routing.choice.picker import WEIGHT_MIN, start_weight
from mesh.routing.choice.traffic_split import CallingReplica as CallingReplica
from mesh.routing.choice.traffic_split import TrafficSplit, renewed
from mesh.routing.endpoint import Endpoint
from mesh.routing.model_holders import ModelHolders
from mesh.routing.outlier_ejection import EjectionLimits, find_outliers, left_out
from mesh.routing.router_metrics import RouterCounts
from mesh.routing.snapshot import Snapshot
from mesh.routing.waiting.places import Places
from mesh.rpc.status_codes import DATA_LOSS, INTERNAL, UNAVAILABLE, UNKNOWN
from mesh.settings import settings
from mesh.wire.io_thread import io_thread
from mesh.wire.mesh_token import local_socket

logger = logging.getLogger("mesh")

_FAILURE_CODES = {UNKNOWN, INTERNAL, UNAVAILABLE, DATA_LOSS}
"""Faults of the replica. Other codes speak of the request, or of the time that its caller gave it."""
_FAILURES_COUNTED_MAX = 64
"""Failures that count when one link breaks; more would not change the share."""
_LOST = "the controller reports that its process or its node is gone"
_CLOSED = "this process has shut its handle down, or left the mesh"
_random = Random().random
"""Not the generator of the program, which may have seeded it."""


@dataclass(frozen=True, slots=True)
class CallerIdentity:
    """What a caller's links say about its process, and the token that admits them."""

    process_id: str
    node_id: str
    zone: str
    token: bytes
    replica: CallingReplica | None = None
    """Which replica the process is, if it is one."""


class _Owner(NamedTuple):
    """The router of the links."""

    observer: LinkObserver
    counts: RouterCounts
    on_change: Callable[[], None]


class LinkPool:
    """One endpoint per listed replica, and those of them that can take calls.

    A timer ticks while loads age, calls fail, or replicas are left out or start slowly. It costs a call nothing.
    """

    def __init__(
        self, identity: CallerIdentity, observer: LinkObserver, counts: RouterCounts, on_change: Callable[[], None]
    ) -> None:
        """`on_change` is called when replicas that were left out may get calls again."""
        self.identity = identity
        self._owner = _Owner(observer, counts, on_change)
        self.endpoints: dict[str, Endpoint] = {}
        self.is_ticking = False
        self._usable: tuple[Endpoint, ...] = ()
        """Those with a link that takes calls."""
        self._draining: set[Endpoint] = set()
        """No longer listed, but their links still carry calls."""
        self.all: Locality[Endpoint] = Locality()
        """Usable endpoints without those that are left out."""
        self.local_first: tuple[Locality[Endpoint], ...] = (self.all,)
        """The same on the same node, in the same zone, anywhere; without localities that are empty or the same."""
        self._models = ModelHolders()
        self.split: TrafficSplit | None = None
        """Decides which requests a canary of the application serves; None: it has no canary."""
        self.canary: CanaryCandidates | None = None
        """Usable endpoints of the canary, which are not among `all` then; None: it has none, or there are no others."""
        self.unlisted_at_s = float("inf")
        """time.monotonic() instant at which the list of replicas became empty; infinite while it is not."""

    def __repr__(self) -> str:
        return f"<LinkPool, listed: {len(self.endpoints)}, usable: {self.link_count}, draining: {len(self._draining)}>"

    def update(self, snapshot: Snapshot) -> None:
        """Connect to replicas that are new in the snapshot; drain the links of those that are not in it."""
        listed = {replica.replica_id: replica for replica in snapshot.replicas}
        is_running = bool(self.endpoints)
        for replica_id in self.endpoints.keys() - listed.keys():
            self._drain(self.endpoints.pop(replica_id))
        if snapshot.lost:
            self._close_lost(snapshot.lost)
        for replica_id, replica in listed.items():
            if replica_id not in self.endpoints:
                endpoint = self.endpoints[replica_id] = Endpoint(replica, snapshot.max_ongoing_requests)
                if is_running:
                    self._start_slowly(endpoint, time.monotonic())
                endpoint.task = io_thread().spawn(self._keep_link(endpoint), f"link-{replica_id}")
            endpoint = self.endpoints[replica_id]
            endpoint.info, endpoint.limit = replica, snapshot.max_ongoing_requests
        self.split = renewed(self.split, snapshot.traffic, _random, self.identity.replica)
        self.unlisted_at_s = float("inf") if listed else min(self.unlisted_at_s, time.monotonic())
        self.refresh()

    def refresh(self) -> None:
        """Rebuild the localities: a link became ready, drains or broke, or an ejection or a slow start changed."""
        self._usable = tuple(endpoint for endpoint in self.endpoints.values() if endpoint.is_usable)
        out = set(left_out({endpoint: endpoint.health for endpoint in self._usable}))
        self._owner.counts.left_out = len(out)
        for endpoint in self._usable:
            endpoint.was_usable = True
            endpoint.is_left_out = endpoint in out
        usable: Sequence[Endpoint] = [endpoint for endpoint in self._usable if not endpoint.is_left_out]
        usable, self.canary = divided(usable, self.endpoints.values(), self.split, self.canary)
        for endpoint in usable:
            endpoint.is_left_out = False
        zone = self.identity.zone
        same_zone = [endpoint for endpoint in usable if zone and endpoint.info.zone == zone]
        same_node = [endpoint for endpoint in usable if endpoint.info.node_id == self.identity.node_id]
        self.all = Locality(usable, self.all)
        nearer = [endpoints for endpoints in (same_node, same_zone) if 0 < len(endpoints) < len(usable)]
        self._models.reset(self.all.candidates)
        self.local_first = (*(Locality(endpoints, self.all) for endpoints in nearer), self.all)

    def record_result(self, endpoint: Endpoint, code: int) -> None:
        """Remember how a call of the replica ended, and that it has just reported its load."""
        self._refresh_load(endpoint)
        if code and code in _FAILURE_CODES:
            self._record_failures(endpoint, 1)
            return
        if endpoint.health.failure_share:
            endpoint.health.record_success()
        if self.all.remembers:
            for locality in self.local_first:
                locality.record_load(endpoint)
        if self.canary is not None:
            self.canary.all.record_load(endpoint)

    def record_load(self, link: CallerLink) -> Collection[str]:
        """Remember that the replica has just reported its load or its models. Returns those it has gained or lost."""
        endpoint = self.endpoint_of(link)
        if endpoint is None:
            return ()
        changed = endpoint.note_announcement()
        self._forget_models(changed)
        self._refresh_load(endpoint)
        return changed

    def expect_model(self, endpoint: Endpoint, model_id: str) -> None:
        """Remember that a call for the model is sent to the replica, which will load it."""
        self._forget_models(endpoint.expect_model(model_id))

    def holders_of(self, model_id: str) -> Sequence[Endpoint]:
        """The replicas that hold the model or load it, of those that calls may be sent to."""
        return self._models.of(model_id)

    def record_broken(self, link: CallerLink, calls: int) -> None:
        """Remember that the link broke with this many calls that its replica had."""
        endpoint = self.endpoint_of(link)
        if endpoint is not None and calls:
            self._record_failures(endpoint, calls)

    def record_rejected(self, link: CallerLink) -> None:
        """Remember that the replica refused a call."""
        endpoint = self.endpoint_of(link)
        if link.is_draining:
            self.refresh()
        elif endpoint is not None:
            # The replica is full, even if we know of fewer calls. It sends a Load when a place becomes free.
            link.others_ongoing = max(link.others_ongoing, endpoint.limit - link.ongoing)

    def endpoint_of(self, link: CallerLink) -> Endpoint | None:
        """The listed replica whose link this is now; None for an earlier link, and for a replica not listed now."""
        endpoint = self.endpoints.get(link.replica_id)
        return endpoint if endpoint is not None and endpoint.link is link else None

    def serving(self, link: CallerLink) -> Endpoint | None:
        """The replica of the link if it may get calls."""
        endpoint = self.endpoint_of(link)
        return endpoint if endpoint is not None and link.is_usable and not endpoint.is_left_out else None

    def find(self, replica_id: str) -> Endpoint | None:
        """The replica of this id, if it is listed."""
        return self.endpoints.get(replica_id)

    @property
    def link_count(self) -> int:
        return len(self._usable)

    @property
    def places_to_come(self) -> int:
        """Places of listed replicas that this process has not been connected to yet."""
        is_complete = self.link_count == len(self.endpoints)
        return 0 if is_complete else sum(each.limit for each in self.endpoints.values() if not each.was_usable)

    @property
    def ongoing(self) -> int:
        endpoints = (*self.endpoints.values(), *self._draining)
        return sum(endpoint.link.ongoing for endpoint in endpoints if endpoint.link is not None)

    def places(self) -> Places:
        """The places of the replicas and how many are taken. From any thread."""
        usable = self.all.candidates
        return Places(
            busy=sum(min(endpoint.load, endpoint.limit) for endpoint in usable),
            total=sum(endpoint.limit for endpoint in usable),
            connected=len(usable),
            listed=len(self.endpoints),
        )

    @property
    def is_empty(self) -> bool:
        """No replica is listed, and no link carries calls."""
        return not self.endpoints and not self._draining

    def close_if_idle(self, link: CallerLink) -> None:
        """Close the link if its replica is no longer listed and it carries no call."""
        if not self._draining or not link.is_idle:
            return
        for endpoint in self._draining:
            if endpoint.link is link and endpoint.task is not None:
                endpoint.task.cancel()

    def is_listed(self, endpoint: Endpoint) -> bool:
        return self.endpoints.get(endpoint.info.replica_id) is endpoint

    def close(self) -> Sequence[asyncio.Task[None]]:
        """Close all links. Returns their tasks, to be awaited."""
        tasks = [each.task for each in (*self.endpoints.values(), *self._draining) if each.task is not None]
        for task in tasks:
            task.cancel(_CLOSED)
        self.endpoints.clear()
        self.refresh()
        return tasks

    def _forget_models(self, model_ids: Collection[str]) -> None:
        self._models.forget(model_ids)
        if self.canary is not None:
            self.canary.forget_models(model_ids)

    def _refresh_load(self, endpoint: Endpoint) -> None:
        endpoint.is_load_fresh = True
        if not self.is_ticking and endpoint.link is not None and endpoint.link.others_ongoing:
            self._start_ticking()

    def _record_failures(self, endpoint: Endpoint, calls: int) -> None:
        for _ in range(min(calls, _FAILURES_COUNTED_MAX)):
            endpoint.health.record_failure()
        for locality in self.local_first:
            locality.forget(endpoint)
        if self.canary is not None:
            self.canary.all.forget(endpoint)
        self._start_ticking()

    def _start_slowly(self, endpoint: Endpoint, now_s: float) -> None:
        endpoint.starts_at_s = now_s
        endpoint.weight = start_weight(0.0, settings().routing.slow_start_s)
        self._start_ticking()

    def _start_ticking(self) -> None:
        if not self.is_ticking:
            self.is_ticking = True
            io_thread().loop.call_later(settings().routing.load_half_life_s, self._tick)

    def _tick(self) -> None:
        """Look at all replicas: age their loads, eject outliers, end ejections, raise weights."""
        self.is_ticking = False
        now_s = time.monotonic()
        # A list, because each load has to age, also when an earlier one has more to do.
        is_aging = any([endpoint.age_load() for endpoint in self._usable])
        endpoints = list(self.endpoints.values())
        ejected = self._eject_outliers(now_s)
        returned = [each for each in endpoints if each.health.is_ejected and each.health.returns_at_s <= now_s]
        for endpoint in returned:
            endpoint.health.readmit(_ejection_limits())
            self._start_slowly(endpoint, now_s)
        starting = [endpoint for endpoint in endpoints if endpoint.starts_at_s is not None]
        for endpoint in starting:
            self._raise_weight(endpoint, now_s)
        if ejected or returned or any(endpoint.weight == 1 for endpoint in starting):
            self.refresh()
            self._owner.on_change()
        if is_aging or starting or any(endpoint.health.is_ejected for endpoint in endpoints):
            self._start_ticking()

    def _eject_outliers(self, now_s: float) -> bool:
        """Returns whether there were any."""
        healths = {endpoint: endpoint.health for endpoint in self._usable}
        outliers = find_outliers(healths, _ejection_limits())
        durations_s = {endpoint: endpoint.health.eject(_ejection_limits(), now_s) for endpoint in outliers}
        out = left_out(healths) if outliers else ()
        for endpoint, duration_s in durations_s.items():
            endpoint.starts_at_s, endpoint.weight = None, WEIGHT_MIN
            _log_outlier(endpoint, duration_s, is_left_out=endpoint in out)
        return bool(outliers)

    def _raise_weight(self, endpoint: Endpoint, now_s: float) -> None:
        assert endpoint.starts_at_s is not None
        endpoint.weight = start_weight(now_s - endpoint.starts_at_s, settings().routing.slow_start_s)
        if endpoint.weight == 1:
            endpoint.starts_at_s = None

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
        is_local = replica.node_id == identity.node_id
        target = LinkTarget(
            replica.replica_id,
            replica.address,
            pack_hello(replica.replica_id, identity.token),
            local_socket(replica.address, identity.token) if is_local else "",
        )
        link = endpoint.link = CallerLink(replica.replica_id, self._owner.observer)
        try:
            return await run_link(link, target)
        except Exception:
            # Reconnect even after a defect in the link's code.
            logger.exception("the link to replica %s failed", replica.replica_id)
            return False
        finally:
            endpoint.link = None


def _ejection_limits() -> EjectionLimits:
    routing = settings().routing
    return EjectionLimits(
        failure_share=routing.ejection_failure_share, min_s=routing.ejection_min_s, max_s=routing.ejection_max_s
    )


def _log_outlier(endpoint: Endpoint, duration_s: float, *, is_left_out: bool) -> None:
    """At most a third of the replicas are left out; others go on with a small weight."""
    logger.warning(
        "%s replica %s for %.0f s: %.0f%% of its latest calls failed, many more than elsewhere",
        "leaving out" if is_left_out else "sending few calls to",
        endpoint.info.replica_id,
        duration_s,
        endpoint.health.failure_share * 100,
    )
