"""The load of a deployment over the look-back period: a step function of time and its aggregates. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_STEPS_MAX = 128


class LoadStep(NamedTuple):
    """The load from this instant until the next step."""

    since_at_s: float
    requests: float


@dataclass(frozen=True, slots=True)
class LoadWindow:
    """At most about 128 steps, for any look-back period and sampling rate."""

    steps: tuple[LoadStep, ...] = ()

    def with_sample(self, now_s: float, requests: float, look_back_s: float) -> LoadWindow:
        """The window moved to `now_s`, with the load `requests` from then on."""
        kept = self._kept(now_s - look_back_s)
        if not kept or now_s - kept[-1].since_at_s >= look_back_s / _STEPS_MAX:
            if kept and kept[-1].requests == requests:
                return LoadWindow(kept)
            return LoadWindow((*kept, LoadStep(now_s, requests)))
        # Closer together than the window resolves: the newest counts.
        return LoadWindow((*kept[:-1], LoadStep(kept[-1].since_at_s, requests)))

    def aggregate(self, how: str, now_s: float) -> float:
        """The mean over time, the max or the min. With one sample, that sample."""
        if not self.steps:
            return 0.0
        match how:
            case "max":
                return max(step.requests for step in self.steps)
            case "min":
                return min(step.requests for step in self.steps)
            case _:
                return self._mean(now_s)

    def _kept(self, horizon_at_s: float) -> tuple[LoadStep, ...]:
        """The steps after the horizon. The step across it is cut to begin there."""
        across = sum(step.since_at_s <= horizon_at_s for step in self.steps)
        if not across:
            return self.steps
        return (LoadStep(horizon_at_s, self.steps[across - 1].requests), *self.steps[across:])

    def _mean(self, now_s: float) -> float:
        length_s = now_s - self.steps[0].since_at_s
        if length_s <= 0:
            return self.steps[-1].requests
        return sum(requests * span_s for requests, span_s in self._spans(now_s)) / length_s

    def _spans(self, now_s: float) -> Iterator[tuple[float, float]]:
        ends = (*(step.since_at_s for step in self.steps[1:]), now_s)
        return ((step.requests, end_s - step.since_at_s) for step, end_s in zip(self.steps, ends, strict=True))
