"""Owns the links of one router: one to every listed replica, reconnected while it is listed. I/O loop only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from mesh.link.caller import CallerLink, LinkObserver
from mesh.link.frames import pack_hello
from mesh.routing.snapshot import ReplicaInfo, Snapshot
from mesh.settings import settings
from mesh.wire.io_thread import io_thread

_RECONNECT_DELAY_MIN_S = 0.02


@dataclass(frozen=True, slots=True)
class CallerIdentity:
    """Who calls, from where, and with which token."""

    process_id: str
    node_id: str
    zone: str
    token: bytes


class Seat:
    """A listed replica and its current link; a Candidate for the picker."""

    __slots__ = ("expected_models", "info", "limit", "link", "task")

    def __init__(self, info: ReplicaInfo, limit: int) -> None:
        self.info = info
        self.limit = limit
        self.link: CallerLink | None = None
        self.task: asyncio.Task[None] | None = None
        self.expected_models: set[str] = set()
        """Models that we sent calls for; the replica's own announcement replaces the guess."""

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


class LinkPool:
    """Keeps seats in step with snapshots and tells which of them can take calls."""

    def __init__(self, identity: CallerIdentity, observer: LinkObserver) -> None:
        self._identity = identity
        self._observer = observer
        self._seats: dict[str, Seat] = {}
        self.all: tuple[Seat, ...] = ()
        """Usable seats."""
        self.local_first: tuple[tuple[Seat, ...], ...] = ((),)
        """Usable seats on the same node, in the same zone, anywhere."""

    def update(self, snapshot: Snapshot) -> None:
        listed = {replica.replica_id: replica for replica in snapshot.replicas}
        for replica_id in self._seats.keys() - listed.keys():
            self._leave(self._seats.pop(replica_id))
        for replica_id, replica in listed.items():
            if replica_id not in self._seats:
                seat = self._seats[replica_id] = Seat(replica, snapshot.max_ongoing_requests)
                seat.task = io_thread().spawn(self._keep_link(seat), f"link-{replica_id}")
            self._seats[replica_id].limit = snapshot.max_ongoing_requests
        self.refresh()

    def refresh(self) -> None:
        """Build the tuples of usable seats anew: a link became ready, drains or broke."""
        usable = tuple(seat for seat in self._seats.values() if seat.is_usable)
        self.all = usable
        same_node = tuple(seat for seat in usable if seat.info.node_id == self._identity.node_id)
        zone = self._identity.zone
        same_zone = tuple(seat for seat in usable if zone and seat.info.zone == zone)
        self.local_first = (same_node, same_zone, usable)

    def seat_of(self, link: CallerLink) -> Seat | None:
        seat = self._seats.get(link.replica_id)
        return seat if seat is not None and seat.link is link else None

    @property
    def link_count(self) -> int:
        return len(self.all)

    @property
    def ongoing(self) -> int:
        return sum(seat.link.ongoing for seat in self._seats.values() if seat.link is not None)

    def close(self) -> Sequence[asyncio.Task[None]]:
        """Close all links; returns their tasks to wait for."""
        tasks = [seat.task for seat in self._seats.values() if seat.task is not None]
        for task in tasks:
            task.cancel()
        self._seats.clear()
        self.refresh()
        return tasks

    def _leave(self, seat: Seat) -> None:
        """The replica is no longer listed: its link carries the calls it has and is then closed."""
        link = seat.link
        if link is not None:
            link.retire()
        if seat.task is not None and (link is None or not link.ongoing):
            seat.task.cancel()

    def is_listed(self, seat: Seat) -> bool:
        return self._seats.get(seat.info.replica_id) is seat

    async def _keep_link(self, seat: Seat) -> None:
        delay_s = _RECONNECT_DELAY_MIN_S
        identity = self._identity
        while self.is_listed(seat):
            hello = pack_hello(identity.process_id, seat.info.replica_id, identity.token)
            link = seat.link = CallerLink(seat.info.replica_id, seat.info.address, hello, self._observer)
            was_ready = await link.run()
            seat.link = None
            if was_ready:
                delay_s = _RECONNECT_DELAY_MIN_S
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, settings().link_reconnect_delay_max_s)
