"""The load reports of this process to the controller: which are due, and their averages. `now_s` is passed in.

A timer reads the counters, so calls pay nothing. A report has the averages since the report before, so load that comes
and goes between two reports counts too. Load that lasts is reported at every interval, because the controller forgets
callers that stop reporting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2

_SAMPLES_PER_REPORT = 10
_PAUSE_MIN_S = 0.01
"""Least pause between two samples, whatever intervals deployments have."""
_DIGITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Calls of one deployment now, read from its router or its replica in this process."""

    deployment: DeploymentKey
    interval_s: float
    """How often the controller wants a report; 0: never."""
    queued: float = 0
    ongoing: float = 0
    executing: float = 0
    stats: Mapping[str, float] = field(default_factory=dict)
    is_urgent: bool = False
    """Report it immediately, with the present numbers instead of averages."""


class LoadReporter:
    """Averages readings and returns the reports that are due."""

    def __init__(self) -> None:
        self._averages: dict[DeploymentKey, _LoadAverage] = {}

    def take(self, readings: Iterable[Reading], now_s: float) -> list[control_pb2.DeploymentLoad]:
        """Add readings to the averages. Returns the loads that have to be reported now."""
        combined = _by_deployment(readings)
        loads = [_idle(key) for key in self._averages.keys() - combined.keys() if not self._averages.pop(key).was_idle]
        for key, reading in combined.items():
            average = self._averages.setdefault(key, _LoadAverage(now_s))
            average.add(reading, now_s)
            load = average.due(reading, now_s)
            if load is not None:
                loads.append(load)
        return loads

    def restart(self) -> None:
        """Report everything again: the next report goes to a controller that knows nothing."""
        self._averages.clear()


def pause_s(readings: Iterable[Reading], at_most_s: float) -> float:
    """How long to wait before the next reading, in seconds."""
    wanted_s = [reading.interval_s / _SAMPLES_PER_REPORT for reading in readings if reading.interval_s > 0]
    return max(_PAUSE_MIN_S, min([at_most_s, *wanted_s]))


class _LoadAverage:
    """The time since the last report on one deployment."""

    def __init__(self, now_s: float) -> None:
        self._recorded_at_s = now_s
        self._reported_at_s = float("-inf")
        self._area = (0.0, 0.0, 0.0)
        """Integrals over time of queued, ongoing and executing calls, in call-seconds."""
        self.was_idle = True

    def add(self, reading: Reading, now_s: float) -> None:
        span_s, self._recorded_at_s = now_s - self._recorded_at_s, now_s
        queued, ongoing, executing = self._area
        self._area = (
            queued + reading.queued * span_s,
            ongoing + reading.ongoing * span_s,
            executing + reading.executing * span_s,
        )

    def due(self, reading: Reading, now_s: float) -> control_pb2.DeploymentLoad | None:
        """The report if one is due; None, too, while the deployment stays idle."""
        elapsed_s = now_s - self._reported_at_s
        if elapsed_s < reading.interval_s and not reading.is_urgent:
            return None
        present = (reading.queued, reading.ongoing, reading.executing)
        # The first report and an urgent one have the present numbers.
        is_average = 0 < elapsed_s < float("inf") and not reading.is_urgent
        means = tuple(area / elapsed_s for area in self._area) if is_average else present
        self._reported_at_s, self._area = now_s, (0.0, 0.0, 0.0)
        queued, ongoing, executing = (round(mean, _DIGITS) for mean in means)
        is_idle = not (queued or ongoing or executing or reading.stats)
        if is_idle and self.was_idle:
            return None
        self.was_idle = is_idle
        return control_pb2.DeploymentLoad(
            deployment={"app": reading.deployment.app, "name": reading.deployment.name},
            queued=queued,
            ongoing=ongoing,
            executing=executing,
            stats=dict(reading.stats),
        )


def _idle(key: DeploymentKey) -> control_pb2.DeploymentLoad:
    """The report for a deployment that this process no longer calls or serves."""
    return control_pb2.DeploymentLoad(deployment={"app": key.app, "name": key.name})


def _by_deployment(readings: Iterable[Reading]) -> dict[DeploymentKey, Reading]:
    """The readings to be reported. A replica that calls its own deployment has two readings, which are added up."""
    combined: dict[DeploymentKey, Reading] = {}
    for reading in readings:
        if reading.interval_s <= 0:
            continue
        other = combined.get(reading.deployment)
        combined[reading.deployment] = reading if other is None else _sum(other, reading)
    return combined


def _sum(one: Reading, other: Reading) -> Reading:
    return replace(
        one,
        interval_s=min(one.interval_s, other.interval_s),
        queued=one.queued + other.queued,
        ongoing=one.ongoing + other.ongoing,
        executing=one.executing + other.executing,
        stats={**one.stats, **other.stats},
        is_urgent=one.is_urgent or other.is_urgent,
    )
