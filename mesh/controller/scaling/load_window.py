"""Owns the recent past of a deployment's load: a step function of time, and what it was on average. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_STEPS_MAX = 128


class Step(NamedTuple):
    """The load was this from then on, until the next step."""

    since_at_s: float
    requests: float


@dataclass(frozen=True, slots=True)
class LoadWindow:
    """At most about 128 steps, whatever the look-back period and however often it is looked at."""

    steps: tuple[Step, ...] = ()

    def with_sample(self, now_s: float, requests: float, look_back_s: float) -> LoadWindow:
        """The window moved to `now_s`, from when on the load is `requests`."""
        kept = self._kept(now_s - look_back_s)
        if not kept or now_s - kept[-1].since_at_s >= look_back_s / _STEPS_MAX:
            if kept and kept[-1].requests == requests:
                return LoadWindow(kept)
            return LoadWindow((*kept, Step(now_s, requests)))
        # Closer together than the window resolves: the newest counts.
        return LoadWindow((*kept[:-1], Step(kept[-1].since_at_s, requests)))

    def aggregate(self, how: str, now_s: float) -> float:
        """The mean over time, the max or the min. A window without a past is what its only sample says."""
        if not self.steps:
            return 0.0
        match how:
            case "max":
                return max(step.requests for step in self.steps)
            case "min":
                return min(step.requests for step in self.steps)
            case _:
                return self._mean(now_s)

    def _kept(self, horizon_at_s: float) -> tuple[Step, ...]:
        """What still counts at the horizon. The step that reaches across it begins there."""
        across = sum(step.since_at_s <= horizon_at_s for step in self.steps)
        if not across:
            return self.steps
        return (Step(horizon_at_s, self.steps[across - 1].requests), *self.steps[across:])

    def _mean(self, now_s: float) -> float:
        length_s = now_s - self.steps[0].since_at_s
        if length_s <= 0:
            return self.steps[-1].requests
        return sum(requests * span_s for requests, span_s in self._spans(now_s)) / length_s

    def _spans(self, now_s: float) -> Iterator[tuple[float, float]]:
        ends = (*(step.since_at_s for step in self.steps[1:]), now_s)
        return ((step.requests, end_s - step.since_at_s) for step, end_s in zip(self.steps, ends, strict=True))
