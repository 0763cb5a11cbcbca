"""`CallerMethods`: methods as each caller gets them, with its identity and counted in its limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any, TypeVar

from gateway.access.call_limits import CallLimits
from gateway.access.meters import Meter
from gateway.dialects.served_method import CallCount, ServedMethod
from gateway.dialects.web_target import WebTarget
from gateway.requests.routes import Refusal
from mesh.wire.identity import Identity

M = TypeVar("M", ServedMethod, WebTarget)

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
        self._entries: dict[tuple[type, str, str, Identity | str], tuple[Any, Sequence[Meter]]] = {}

    def admit(self, method: M, identity: Identity | None, peer: str) -> M | Refusal:
        """The method for one call of this caller, which is to begin now; a Refusal if that is above a limit."""
        if identity is None and self._limits is None:
            return method
        caller = identity if identity is not None else peer.rpartition(":")[0]
        key = type(method), method.application, method.full_name, caller
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
        admitted: M = entry[0]
        return admitted

    def forget(self) -> None:
        """The routes have changed, and with them the methods. Meters stay."""
        self._entries.clear()

    def _entry(self, method: M, identity: Identity | None, caller: Identity | str) -> tuple[M, Sequence[Meter]]:
        now_s = self._clock()
        meters = self._limits.meters_of(caller, method.full_name, now_s) if self._limits is not None else ()
        count = MeteredCount(method.in_flight, meters, self._clock) if meters else method.in_flight
        return replace(method, identity=identity, in_flight=count), meters


class KnownCaller:
    """Who sends one exchange, for the dialect that opens it."""

    __slots__ = ("_identity", "_methods", "_peer", "is_stranger")

    def __init__(self, methods: CallerMethods, identity: Identity | None, peer: str, *, is_stranger: bool) -> None:
        self.is_stranger = is_stranger
        self._methods = methods
        self._identity = identity
        self._peer = peer

    def admit(self, method: M) -> M | Refusal:
        """See `gateway.requests.exchange.Caller`."""
        return self._methods.admit(method, self._identity, self._peer)
