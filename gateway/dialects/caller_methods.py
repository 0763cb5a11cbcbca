"""`CallerMethods`: methods as each caller gets them, with its identity and counted in its limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic

from gateway.access.call_limits import CallLimits
from gateway.access.meters import Meter
from gateway.dialects.served_method import CallCount, ServedMethod
from gateway.requests.routes import Refusal
from mesh.wire.identity import Identity

ENTRIES_MAX = 4096
"""Methods of callers that are kept; they are made again when they are needed."""


class MeteredCount:
    """Counts calls in progress in all meters of a method and its caller."""

    __slots__ = ("_all_calls", "_clock", "meters")

    def __init__(self, all_calls: CallCount, meters: Sequence[Meter], clock: Callable[[], float]) -> None:
        self._all_calls = all_calls
        self.meters = meters
        self._clock = clock

    def enter(self) -> None:
        self._all_calls.enter()
        now_s = self._clock()
        for meter in self.meters:
            meter.take(now_s)

    def leave(self) -> None:
        self._all_calls.leave()
        for meter in self.meters:
            meter.give_back()


class CallerMethods:
    """I/O loop only."""

    def __init__(self, limits: CallLimits | None, clock: Callable[[], float] = monotonic) -> None:
        """`clock` returns seconds."""
        self._limits = limits
        self._clock = clock
        self._entries: dict[tuple[str, str, Identity | str], tuple[ServedMethod, Sequence[Meter]]] = {}

    def admit(self, method: ServedMethod, identity: Identity | None, peer: str) -> ServedMethod | Refusal:
        """The method for one call of this caller, which is to begin now; a Refusal if that is above a limit."""
        if identity is None and self._limits is None:
            return method
        caller = identity if identity is not None else peer.rpartition(":")[0]
        key = method.application, method.full_name, caller
        entry = self._entries.get(key)
        if entry is None or any(meter.is_forgotten for meter in entry[1]):
            entry = self._entry(method, identity, caller)
            if len(self._entries) >= ENTRIES_MAX:
                self._entries.clear()
            self._entries[key] = entry
        if self._limits is not None and entry[1]:
            refusal = self._limits.refusal(entry[1], self._clock())
            if refusal is not None:
                return refusal
        return entry[0]

    def forget(self) -> None:
        """The routes have changed, and with them the methods. Meters stay."""
        self._entries.clear()

    def _entry(
        self, method: ServedMethod, identity: Identity | None, caller: Identity | str
    ) -> tuple[ServedMethod, Sequence[Meter]]:
        now_s = self._clock()
        meters = self._limits.meters_of(caller, method.full_name, now_s) if self._limits is not None else ()
        count = MeteredCount(method.in_flight, meters, self._clock) if meters else method.in_flight
        return replace(method, identity=identity, in_flight=count), meters
