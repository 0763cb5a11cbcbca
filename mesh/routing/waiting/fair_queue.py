"""Calls that wait for a place, in the order of their turns: a few calls of each source at a time. Pure.

Theory of operation. A source is what must not be held up by the calls of another one, such as a client's connection at
a gateway. The calls of one source leave in the order of their submission. The sources stand in a ring: the first one is
next, and goes to the end when `TURN_CALLS` of its calls are sent. A new one begins at the end, so its call waits for at
most one turn of each other source, however many calls they have. With turns of one call no two answers of a connection
would be written together, which costs a gateway half as much again per call. Each step costs the same however many
calls and sources there are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice

from mesh.link.outgoing_call import OutgoingCall
from mesh.routing.waiting.call_queue import PendingQueue

TURN_CALLS = 16
"""As many as make one write, see `mesh.http2.write_turn.ENOUGH`."""


class FairQueue:
    """A `PendingQueue` for each source that has calls, and whose turn it is."""

    def __init__(self) -> None:
        self.calls: dict[int, OutgoingCall] = {}
        """All of them, by sequence number."""
        self._lines: OrderedDict[str, PendingQueue] = OrderedDict()
        """By source, in the order of their turns; none is empty."""
        self._left = TURN_CALLS
        """Calls that the first source may send in its turn."""

    def __len__(self) -> int:
        return len(self.calls)

    def __iter__(self) -> Iterator[OutgoingCall]:
        """In the order of their turns. The queue must not change meanwhile."""
        rest: list[Iterator[OutgoingCall]] = []
        count = self._left
        for line in self._lines.values():
            calls = iter(line)
            yield from islice(calls, count)
            if len(line) > count:
                rest.append(calls)
            count = TURN_CALLS
        while rest:
            rest, lines = [], rest
            for calls in lines:
                for call in calls:
                    yield call
                    yield from islice(calls, TURN_CALLS - 1)
                    rest.append(calls)
                    break

    def __contains__(self, call: OutgoingCall) -> bool:
        return call.sequence in self.calls

    @property
    def first(self) -> OutgoingCall:
        """The call whose turn it is."""
        return next(iter(self._lines.values())).first

    def push(self, call: OutgoingCall) -> None:
        """Let a call wait that is newer than all others of its source."""
        self.calls[call.sequence] = call
        self._line_of(call).push(call)

    def count_turn(self, call: OutgoingCall) -> None:
        """The call is sent: if it is the last one of its source's turn, the others come next. `remove` it then."""
        if call.request.source not in self._lines:
            return
        if self._is_first(call.request.source):
            self._left -= 1
            if self._left:
                return
            self._left = TURN_CALLS
        self._lines.move_to_end(call.request.source)

    def restore(self, call: OutgoingCall) -> None:
        """Let a call wait again that was sent: it is among those of its source by age, and these have the turn."""
        self.calls[call.sequence] = call
        self._line_of(call).restore(call)
        if self._is_first(call.request.source):
            self._left = min(self._left + 1, TURN_CALLS)
        else:
            self._lines.move_to_end(call.request.source, last=False)
            self._left = 1

    def merge(self, calls: Iterable[OutgoingCall]) -> None:
        """Let calls wait among those of their sources by age. No source loses its turn."""
        touched = {}
        for call in calls:
            self.push(call)
            touched[call.request.source] = self._lines[call.request.source]
        for line in touched.values():
            line.sort()

    def remove(self, call: OutgoingCall) -> None:
        """Forget a call, if it waits. Its source keeps its turn."""
        if self.calls.pop(call.sequence, None) is None:
            return
        line = self._lines[call.request.source]
        line.remove(call)
        if not line.calls:
            if self._is_first(call.request.source):
                self._left = TURN_CALLS
            del self._lines[call.request.source]

    def drain(self) -> list[OutgoingCall]:
        """Take all calls, oldest first."""
        calls = [self.calls[sequence] for sequence in sorted(self.calls)]
        self.calls.clear()
        self._lines.clear()
        self._left = TURN_CALLS
        return calls

    def _is_first(self, source: str) -> bool:
        return next(iter(self._lines)) == source

    def _line_of(self, call: OutgoingCall) -> PendingQueue:
        line = self._lines.get(call.request.source)
        if line is None:
            line = self._lines[call.request.source] = PendingQueue()
        return line
