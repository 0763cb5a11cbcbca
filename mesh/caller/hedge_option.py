"""The option `hedge_after_s` of handles: when a second copy of a call goes to another replica."""

from __future__ import annotations

import re

from mesh.link.outgoing_call import HedgePolicy
from mesh.options import option_checks

_PERCENTILE = re.compile(r"p([1-9][0-9]?)")


def hedge_policy(value: object) -> HedgePolicy | None:
    """The option's checked value. Raises TypeError or ValueError naming what is wrong."""
    if value is None or isinstance(value, HedgePolicy):
        return value
    if isinstance(value, str):
        percentile = _PERCENTILE.fullmatch(value)
        if percentile is None:
            raise ValueError(f'hedge_after_s must be seconds, or a percentile such as "p95", got {value!r}.')
        return HedgePolicy(percentile=int(percentile[1]))
    return HedgePolicy(delay_s=option_checks.number("hedge_after_s", value, may_equal=False))
