"""Owns the links of one router: one to every listed replica, reconnected while it is listed. I/O loop only."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from mesh.link.caller_link import CallerLink, LinkObserver, LinkTarget
from mesh.link.frames import pack_hello
from mesh.routing.locality import Tier
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


class Seat:
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
    """Keeps seats in step with snapshots and tells which of them can take calls."""

    def __init__(self, identity: CallerIdentity, observer: LinkObserver) -> None:
        self.identity = identity
        self._observer = observer
        self._seats: dict[str, Seat] = {}
        self._leaving: set[Seat] = set()
        """Not listed any more, but their links still carry calls."""
        self.all: Tier[Seat] = Tier()
        """Usable seats."""
        self.local_first: tuple[Tier[Seat], ...] = (self.all,)
        """Usable seats on the same node, in the same zone, anywhere: as many tiers as differ."""
        self.unlisted_since_s = float("inf")
        """time.monotonic() when the list of replicas was found to be empty; infinite where it is not."""

    def update(self, snapshot: Snapshot) -> None:
        listed = {replica.replica_id: replica for replica in snapshot.replicas}
        for replica_id in self._seats.keys() - listed.keys():
            self._leave(self._seats.pop(replica_id))
        if snapshot.lost:
            self._give_up(snapshot.lost)
        for replica_id, replica in listed.items():
            if replica_id not in self._seats:
                seat = self._seats[replica_id] = Seat(replica, snapshot.max_ongoing_requests)
                seat.task = io_thread().spawn(self._keep_link(seat), f"link-{replica_id}")
            self._seats[replica_id].limit = snapshot.max_ongoing_requests
        if listed:
            self.unlisted_since_s = float("inf")
        else:
            self.unlisted_since_s = min(self.unlisted_since_s, time.monotonic())
        self.refresh()

    def refresh(self) -> None:
        """Build the tiers of usable seats anew: a link became ready, drains or broke."""
        usable = [seat for seat in self._seats.values() if seat.is_usable]
        zone = self.identity.zone
        same_zone = [seat for seat in usable if zone and seat.info.zone == zone]
        same_node = [seat for seat in usable if seat.info.node_id == self.identity.node_id]
        self.all = Tier(usable, self.all)
        nearer = [seats for seats in (same_node, same_zone) if 0 < len(seats) < len(usable)]
        self.local_first = (*(Tier(seats, self.all) for seats in nearer), self.all)

    def note(self, link: CallerLink) -> None:
        """A result has told the load of the link's replica."""
        seat = self.seat_of(link) if self.all.remembers else None
        if seat is not None:
            for tier in self.local_first:
                tier.note(seat)

    def seat_of(self, link: CallerLink) -> Seat | None:
        seat = self._seats.get(link.replica_id)
        return seat if seat is not None and seat.link is link else None

    @property
    def link_count(self) -> int:
        return len(self.all.candidates)

    @property
    def ongoing(self) -> int:
        seats = (*self._seats.values(), *self._leaving)
        return sum(seat.link.ongoing for seat in seats if seat.link is not None)

    @property
    def is_empty(self) -> bool:
        """No replica is listed, and no link of one that was carries anything."""
        return not self._seats and not self._leaving

    def close(self) -> Sequence[asyncio.Task[None]]:
        """Close all links; returns their tasks to wait for."""
        tasks = [seat.task for seat in (*self._seats.values(), *self._leaving) if seat.task is not None]
        for task in tasks:
            task.cancel()
        self._seats.clear()
        self.refresh()
        return tasks

    def _leave(self, seat: Seat) -> None:
        """The replica is no longer listed: its link carries the calls it has and is then closed."""
        if seat.link is not None and not seat.link.is_idle:
            self._leaving.add(seat)
            seat.link.retire()
        elif seat.task is not None:
            seat.task.cancel()

    def _give_up(self, lost: frozenset[str]) -> None:
        """Their calls fail now: the connection to a host that has vanished would look alive for some seconds more."""
        for seat in list(self._leaving):
            if seat.info.replica_id in lost and seat.task is not None:
                seat.task.cancel(_LOST)

    def let_go(self, link: CallerLink) -> None:
        """A call has left the link: close it if it was the last one of a link that is not listed any more."""
        if not self._leaving or not link.is_idle:
            return
        for seat in self._leaving:
            if seat.link is link and seat.task is not None:
                seat.task.cancel()

    def is_listed(self, seat: Seat) -> bool:
        return self._seats.get(seat.info.replica_id) is seat

    async def _keep_link(self, seat: Seat) -> None:
        delay_s = _RECONNECT_DELAY_MIN_S
        try:
            while self.is_listed(seat):
                if await self._carry(seat):
                    delay_s = _RECONNECT_DELAY_MIN_S
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, settings().link.reconnect_delay_max_s)
        finally:
            self._leaving.discard(seat)

    async def _carry(self, seat: Seat) -> bool:
        """One link from connecting to its end; returns whether the replica had accepted it."""
        identity, replica = self.identity, seat.info
        hello = pack_hello(identity.process_id, replica.replica_id, identity.token, gathers=identity.gathers)
        target = LinkTarget(replica.replica_id, replica.address, hello, identity.gathers)
        link = seat.link = CallerLink(target, self._observer)
        try:
            return await link.run()
        except Exception:
            # A defect in a link must not end the attempts to reach its replica.
            logger.exception("the link to replica %s failed", replica.replica_id)
            return False
        finally:
            seat.link = None
