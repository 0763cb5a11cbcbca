"""A replica's strict limit on ongoing calls, and who gets a place that becomes free. I/O loop only.

A caller that takes the replica for full holds its calls back. So each free place is offered to one of these callers,
the longest waiting first. A place that is offered counts as taken until the caller has sent a call or declined, so no
two callers ever race for it, however many wait. A caller that does not answer, because its process is stopped or its
host is gone, loses the offer to the next one long before its link is found to be broken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from mesh.phases.waiting import Waiters
from mesh.settings import settings


class PlaceSeeker(Protocol):
    """A link whose caller may be waiting for a free place."""

    def push_load(self) -> None:
        """Send a load report."""

    def offer_place(self) -> None:
        """Send the offer of a place, which the caller answers with a call or a Decline."""


def _later(delay_s: float, function: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(delay_s, function)


class Admission:
    """Counts ongoing calls against the limit."""

    def __init__(self, limit: int, later: Callable[[float, Callable[[], None]], None] = _later) -> None:
        """`limit`: calls at the same time. `later` calls a function after that many seconds."""
        self.limit = limit
        self.ongoing = 0
        self.rejected = 0
        self.is_closed = False
        self._waiting: dict[PlaceSeeker, None] = {}
        """Links that take the replica for full, in the order of their turns."""
        self._offered: dict[PlaceSeeker, int] = {}
        """Links that have been offered a place and have not answered, and `_looks` as it was then."""
        self._looks = 0
        """How often offers were looked at; they are while there are any."""
        self._is_looking = False
        self._later = later
        self._idle = Waiters()

    def __repr__(self) -> str:
        phase = "closed" if self.is_closed else "open"
        return f"<Admission {phase}, {self.ongoing} of {self.limit} places taken, {self.links_waiting} links waiting>"

    def try_enter(self, seeker: PlaceSeeker) -> bool:
        """Take a place, unless all are taken or offered to others, or the replica drains."""
        has_place = self.has_place_for(seeker)
        self._offered.pop(seeker, None)
        if has_place:
            self.ongoing += 1
        else:
            self.rejected += 1
        return has_place

    def enter_beyond(self, seeker: PlaceSeeker) -> bool:
        """Take a place even if all are taken; not if the replica drains."""
        self._offered.pop(seeker, None)
        if self.is_closed:
            self.rejected += 1
        else:
            self.ongoing += 1
        return not self.is_closed

    def has_place_for(self, seeker: PlaceSeeker) -> bool:
        """Whether `try_enter` would succeed."""
        return not self.is_closed and self.taken - (seeker in self._offered) < self.limit

    def leave(self) -> None:
        """Give a place back."""
        self.ongoing -= 1
        if not self.ongoing:
            self._idle.wake()
        if self._waiting:
            self._offer()

    def decline(self, seeker: PlaceSeeker) -> None:
        """The link has no call for the place that it was offered. Without effect on one that was offered none."""
        if self._offered.pop(seeker, None) is not None:
            self._offer()

    @property
    def links_waiting(self) -> int:
        """Links whose callers wait for the offer of a place, or for news that one is free."""
        return len(self._waiting)

    @property
    def taken(self) -> int:
        """Places that are taken or offered."""
        return self.ongoing + len(self._offered)

    def load_for(self, seeker: PlaceSeeker) -> int:
        """The number of places that are not free for this link, to be sent to it now."""
        taken = self.taken - (seeker in self._offered)
        if taken >= self.limit:
            self._waiting[seeker] = None
        return taken

    def watch(self, seeker: PlaceSeeker) -> None:
        """The link takes the replica for full: tell it about a free place, now or when it gets one."""
        if self.taken < self.limit:
            seeker.push_load()
        else:
            self._waiting[seeker] = None

    def forget(self, seeker: PlaceSeeker) -> None:
        """The link knows the load from elsewhere."""
        self._waiting.pop(seeker, None)

    def remove(self, seeker: PlaceSeeker) -> None:
        """The link is gone."""
        self.forget(seeker)
        self.decline(seeker)

    def close(self) -> None:
        """Admit no more calls."""
        self.is_closed = True

    async def idle(self) -> None:
        """Wait until no call is ongoing."""
        await self._idle.until(lambda: not self.ongoing)

    def set_limit(self, limit: int, seekers: Iterable[PlaceSeeker] = ()) -> None:
        """Change the limit and report the load to all links: each may have waited because of the old one."""
        self.limit = limit
        self._waiting.clear()
        for seeker in seekers:
            seeker.push_load()

    def _offer(self) -> None:
        while self._waiting and self.taken < self.limit and not self.is_closed:
            seeker = next(iter(self._waiting))
            del self._waiting[seeker]
            self._offered[seeker] = self._looks
            seeker.offer_place()
        self._look_again()

    def _look_again(self) -> None:
        if self._offered and not self._is_looking:
            self._is_looking = True
            self._later(settings().link.offer_timeout_s, self._look)

    def _look(self) -> None:
        """Withdraw the offers that were there at the last look. Their links may still send a call, as any other."""
        self._is_looking = False
        late = [seeker for seeker, looks in self._offered.items() if looks < self._looks]
        self._looks += 1
        for seeker in late:
            del self._offered[seeker]
        self._offer()
