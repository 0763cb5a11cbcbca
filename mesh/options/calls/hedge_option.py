"""The option `hedge_after_s`: when a second copy of a call goes to another replica."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mesh.options import option_checks

_PERCENTILE = re.compile(r"p([1-9][0-9]?)")


@dataclass(frozen=True, slots=True)
class HedgePolicy:
    """When a second copy of a unary call is sent to another replica: after a delay, or a percentile of durations."""

    delay_s: float = 0.0
    percentile: int = 0
    """Percentile of the durations of the latest calls of the method; 0: `delay_s` is used instead."""


def hedge_policy(value: object, name: str = "hedge_after_s") -> HedgePolicy | None:
    """The option's checked value. Raises TypeError or ValueError naming what is wrong; `name` is the option's."""
    if value is None or isinstance(value, HedgePolicy):
        return value
    if isinstance(value, str):
        percentile = _PERCENTILE.fullmatch(value)
        if percentile is None:
            raise ValueError(f'{name} must be seconds, or a percentile such as "p95", got {value!r}.')
        return HedgePolicy(percentile=int(percentile[1]))
    return HedgePolicy(delay_s=option_checks.number(name, value, may_equal=False))
