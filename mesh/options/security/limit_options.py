"""`LimitOptions`: how much an identity may call, and how much a method is called, at one gateway."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mesh.options import option_checks
from mesh.options.absent_options import check_known
from mesh.v1 import control_pb2

_KEYS_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitOptions:
    """One limit. Calls above it end with RESOURCE_EXHAUSTED, or 429."""

    rate_per_s: float | None = None
    """Calls per second on average; None: no limit."""
    burst: float | None = None
    """Calls that may come at once after a pause; None: as many as in one second, at least one."""
    concurrent: int | None = None
    """Calls in progress; None: no limit."""

    def to_message(self, key: str) -> control_pb2.CallLimit:
        rate = self.rate_per_s or 0.0
        return control_pb2.CallLimit(
            key=key,
            rate_per_s=rate,
            burst=self.burst if self.burst is not None else max(1.0, math.ceil(rate)),
            concurrent_max=self.concurrent or 0,
        )


def parse(name: str, given: object) -> dict[str, LimitOptions]:
    """The limits by key. Raises TypeError or ValueError; `name` is the option's."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{name} must be a dict, got {type(given).__name__}.")
    if len(given) > _KEYS_MAX:
        raise ValueError(f"{name} has {len(given)} keys; {_KEYS_MAX} are possible. '*' stands for all others.")
    return {
        option_checks.name_text(f"a key of {name}", key): _parse_one(f"{name}[{key!r}]", given[key]) for key in given
    }


def to_messages(limits: Mapping[str, LimitOptions]) -> list[control_pb2.CallLimit]:
    return [limits[key].to_message(key) for key in sorted(limits)]


def _parse_one(name: str, given: Any) -> LimitOptions:
    if isinstance(given, Mapping):
        check_known(name, given, (field.name for field in fields(LimitOptions)))
        given = LimitOptions(**given)
    if not isinstance(given, LimitOptions):
        raise TypeError(f"{name} must be a dict, got {type(given).__name__}.")
    if given.rate_per_s is None and given.concurrent is None:
        raise ValueError(f"{name} needs rate_per_s or concurrent.")
    if given.rate_per_s is not None:
        option_checks.number(f"{name}['rate_per_s']", given.rate_per_s, may_equal=False)
    if given.burst is not None:
        if given.rate_per_s is None:
            raise ValueError(f"{name}['burst'] needs rate_per_s.")
        option_checks.number(f"{name}['burst']", given.burst, minimum=1)
    if given.concurrent is not None:
        option_checks.whole_number(f"{name}['concurrent']", given.concurrent, 1)
    return given
