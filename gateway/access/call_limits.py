"""`CallLimits`: limits per identity and per method. Pure: the time is passed in.

A client without an identity counts by its address.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil

from gateway.access.meters import Limit, Meter, MeterTable
from gateway.requests.routes import Refusal
from mesh.rpc.status_codes import RESOURCE_EXHAUSTED
from mesh.v1 import control_pb2
from mesh.wire.identity import Identity

_OTHERS = "*"


class CallLimits:
    """All limits of one gateway."""

    def __init__(self, per_identity: Mapping[str, Limit], per_method: Mapping[str, Limit], *, meters_max: int) -> None:
        """`per_identity` by name, `per_method` by full name or "/package.Service/*"; "*" stands for each other one."""
        self._per_identity = per_identity
        self._exact = {key: limit for key, limit in per_method.items() if not key.endswith(_OTHERS)}
        # The longest first, so that the nearest applies.
        patterns = sorted((key for key in per_method if key.endswith(_OTHERS)), key=len, reverse=True)
        self._patterns = [(key[:-1], per_method[key]) for key in patterns]
        self._meters = MeterTable(meters_max)
        self.refused = 0
        """Calls above a limit."""

    def __repr__(self) -> str:
        return f"<CallLimits meters: {len(self._meters)}>"

    def meters_of(self, caller: Identity | str, full_name: str, now_s: float) -> tuple[Meter, ...]:
        """The meters that a call of a served method counts in. `caller`: its identity, or its address."""
        found: list[Meter] = []
        name = caller.name if isinstance(caller, Identity) else caller
        own = self._per_identity.get(name) if isinstance(caller, Identity) else None
        by_caller = own or self._per_identity.get(_OTHERS)
        if by_caller is not None:
            # An address is never taken for the identity of that name.
            key = ("identity" if isinstance(caller, Identity) else "address", name)
            found.append(self._meters.meter(key, lambda: by_caller, now_s))
        by_method = self._exact.get(full_name) or self._pattern_of(full_name)
        if by_method is not None:
            found.append(self._meters.meter(("method", full_name), lambda: by_method, now_s))
        return tuple(found)

    def refusal(self, meters: Iterable[Meter], now_s: float) -> Refusal | None:
        """Why one more call in all these meters is too much; None if it is not."""
        for meter in meters:
            wait_s = meter.wait_s(now_s)
            if wait_s != 0.0:
                self.refused += 1
                return _refusal(meter.limit, wait_s)
        return None

    def _pattern_of(self, full_name: str) -> Limit | None:
        return next((limit for prefix, limit in self._patterns if full_name.startswith(prefix)), None)


def read_limits(messages: Iterable[control_pb2.CallLimit]) -> dict[str, Limit]:
    """By key, from the options of a gateway."""
    return {
        each.key: Limit(rate_per_s=each.rate_per_s, burst=each.burst, concurrent_max=each.concurrent_max)
        for each in messages
    }


def _refusal(limit: Limit, wait_s: float | None) -> Refusal:
    if wait_s is None:
        text = f"Only {limit.concurrent_max} calls at a time are allowed here. Wait until one has ended."
        return Refusal(RESOURCE_EXHAUSTED, text)
    text = f"Only {limit.rate_per_s:g} calls per second are allowed here. Retry in {ceil(wait_s * 1000)} ms."
    return Refusal(RESOURCE_EXHAUSTED, text, retry_after_s=wait_s)
