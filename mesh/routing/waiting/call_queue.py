"""A queue of calls that wait for a replica, in the order of their sequence numbers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from mesh.link.outgoing_call import OutgoingCall


class PendingQueue:
    """Calls by sequence number. A call that comes back (rejected, or never sent) gets its old place."""

    def __init__(self) -> None:
        self.calls: OrderedDict[int, OutgoingCall] = OrderedDict()
        """By sequence number. Public: each call and each result asks whether it is empty, and `len` is slower."""

    def __len__(self) -> int:
        return len(self.calls)

    def __iter__(self) -> Iterator[OutgoingCall]:
        return iter(self.calls.values())

    def __contains__(self, call: OutgoingCall) -> bool:
        return call.sequence in self.calls

    @property
    def first(self) -> OutgoingCall:
        """The oldest call."""
        return next(iter(self.calls.values()))

    def push(self, call: OutgoingCall) -> None:
        """Append a call that is newer than all others."""
        self.calls[call.sequence] = call

    def pop(self) -> OutgoingCall:
        """Take the oldest call."""
        return self.calls.popitem(last=False)[1]

    def restore(self, call: OutgoingCall) -> None:
        """Put a call back in its place by age. Cheap, because nearly all waiting calls are newer."""
        older: list[OutgoingCall] = []
        while self.calls and next(iter(self.calls)) < call.sequence:
            older.append(self.pop())
        for each in (call, *reversed(older)):
            self.calls[each.sequence] = each
            self.calls.move_to_end(each.sequence, last=False)

    def remove(self, call: OutgoingCall) -> None:
        self.calls.pop(call.sequence, None)

    def sort(self) -> None:
        """Bring calls that were pushed late to their places by age."""
        self.calls = OrderedDict(sorted(self.calls.items()))

    def drain(self) -> list[OutgoingCall]:
        """Take all calls, oldest first."""
        calls = list(self.calls.values())
        self.calls.clear()
        return calls
