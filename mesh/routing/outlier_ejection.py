"""Outlier ejection: a replica whose calls fail while those of its peers do not is left out for a while. Pure.

Theory of operation. Each caller judges by its own calls. It keeps the share of failures among the latest calls of each
replica as a moving average, so the number counts too: six failures in a row, or a third of many calls. What counts is
how far a share is above the mean of the others, so a deployment that fails as a whole loses no replica. The time that a
replica is left out doubles with each ejection, until about fifty calls in a row have gone well. It returns with a share
just below the limit: two more failures, and it is out again. At most a third of the replicas are left out; further
outliers stay, at a reduced weight. The same idea is in Envoy ("outlier detection") and Finagle ("failure accrual").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

_SMOOTHING = 1 / 16
_FORGOTTEN_BELOW = 0.01
_RETURN_SHARE = 0.8
"""A replica returns with this share of the limit as its share of failures."""
_LEFT_OUT_MAX_SHARE = 3
"""At most one of this many replicas."""

K = TypeVar("K")


@dataclass(frozen=True, slots=True, kw_only=True)
class EjectionLimits:
    failure_share: float
    """How far a replica's share of failures is above the mean of the others when it is ejected."""
    min_s: float
    """How long the first ejection lasts."""
    max_s: float


@dataclass(slots=True)
class CallHealth:
    """How the latest calls to one replica ended, and until when it is ejected."""

    failure_share: float = 0.0
    """The share of failures among the latest calls, about sixteen; 0 again when all recent ones went well."""
    ejections: int = 0
    """In a row."""
    returns_at_s: float = 0.0
    """time.monotonic() instant; 0 while it is not ejected."""

    @property
    def is_ejected(self) -> bool:
        return self.returns_at_s > 0

    def record_success(self) -> None:
        """Only needed while `failure_share` is not 0."""
        self.failure_share *= 1 - _SMOOTHING
        if self.failure_share < _FORGOTTEN_BELOW:
            self.failure_share = 0.0
            if not self.is_ejected:
                self.ejections = 0

    def record_failure(self) -> None:
        self.failure_share += (1 - self.failure_share) * _SMOOTHING

    def eject(self, limits: EjectionLimits, now_s: float) -> float:
        """Returns for how long, in seconds."""
        duration_s = min(limits.max_s, limits.min_s * 2.0 ** min(self.ejections, 32))
        self.ejections += 1
        self.returns_at_s = now_s + duration_s
        return duration_s

    def readmit(self, limits: EjectionLimits) -> None:
        """End the ejection. Few failures are enough for the next one."""
        self.returns_at_s = 0.0
        self.failure_share = limits.failure_share * _RETURN_SHARE


def find_outliers(replicas: Mapping[K, CallHealth], limits: EjectionLimits) -> list[K]:
    """The replicas to eject now: compared with the others that are not ejected."""
    serving = {replica: health.failure_share for replica, health in replicas.items() if not health.is_ejected}
    total, others = sum(serving.values()), len(serving) - 1
    return [
        replica
        for replica, share in serving.items()
        # The first condition is implied, and spares the arithmetic of nearly all.
        if share >= limits.failure_share and others and share - (total - share) / others >= limits.failure_share
    ]


def left_out(replicas: Mapping[K, CallHealth]) -> Sequence[K]:
    """The ejected replicas that get no calls: those with most failures first, and at most a third of all."""
    ejected = [replica for replica, health in replicas.items() if health.is_ejected]
    ejected.sort(key=lambda replica: replicas[replica].failure_share, reverse=True)
    return ejected[: len(replicas) // _LEFT_OUT_MAX_SHARE]
