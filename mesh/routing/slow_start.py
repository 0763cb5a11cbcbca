"""Slow start: the weight of a replica that is new or was left out grows over seconds. Pure.

A new replica has no calls, so it would be the least loaded of all and get every call at once, while its caches are cold
and its code has not run yet. The weight is the chance that a replica gets a call that it would get at full weight; if
the others are full, it gets the call anyhow.
"""

from __future__ import annotations

WEIGHT_MIN = 0.1


def start_weight(since_s: float, duration_s: float) -> float:
    """The weight this long after the start: from `WEIGHT_MIN` to 1."""
    return 1.0 if since_s >= duration_s else max(WEIGHT_MIN, since_s / duration_s)
