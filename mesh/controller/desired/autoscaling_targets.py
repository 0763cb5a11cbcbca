"""Autoscaling options as the rule reads them, with their bounds at the capacity of now (items 225–233). Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mesh.settings import settings
from mesh.v1 import control_pb2

AGGREGATIONS = {
    control_pb2.AGGREGATION_MEAN: "mean",
    control_pb2.AGGREGATION_MAX: "max",
    control_pb2.AGGREGATION_MIN: "min",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingRules:
    min_replicas: int = 1
    max_replicas: int = 1
    target_ongoing_requests: float = 2.0
    metrics_interval_s: float = 10.0
    look_back_period_s: float = 30.0
    upscaling_factor: float = 1.0
    downscaling_factor: float = 1.0
    upscale_delay_s: float = 30.0
    downscale_delay_s: float = 600.0
    downscale_to_zero_delay_s: float = 600.0
    aggregation: str = "mean"
    """mean, max or min of the requests within the look-back period."""
    policy: str = ""
    """Not empty: the user's function that decides instead of the built-in rule."""
    is_external: bool = False
    """Scale requests set the number."""

    def clip(self, replicas: int) -> int:
        return min(max(replicas, self.min_replicas), self.max_replicas)

    @property
    def expiry_s(self) -> float:
        """A load that was not reported again for so long is forgotten (item 233)."""
        return load_expiry_s(self.metrics_interval_s)


def load_interval_s(options: control_pb2.DeploymentOptions) -> float:
    """How often callers report the load of a deployment."""
    return options.autoscaling.metrics_interval_s or settings().controller.load_interval_s


def load_expiry_s(interval_s: float) -> float:
    return max(2 * interval_s, settings().controller.load_expiry_min_s)


def read_rules(options: control_pb2.AutoscalingOptions, target_capacity_percent: float | None = None) -> ScalingRules:
    """The rules with their bounds at that capacity."""
    return ScalingRules(
        min_replicas=at_capacity(options.min_replicas, target_capacity_percent),
        max_replicas=at_capacity(options.max_replicas, target_capacity_percent),
        target_ongoing_requests=options.target_ongoing_requests,
        metrics_interval_s=options.metrics_interval_s,
        look_back_period_s=options.look_back_period_s,
        upscaling_factor=options.upscaling_factor,
        downscaling_factor=options.downscaling_factor,
        upscale_delay_s=options.upscale_delay_s,
        downscale_delay_s=options.downscale_delay_s,
        downscale_to_zero_delay_s=options.downscale_to_zero_delay_s,
        aggregation=AGGREGATIONS[options.aggregation],
        policy=options.policy.function,
        is_external=options.is_external,
    )


def at_capacity(replicas: int, target_capacity_percent: float | None) -> int:
    """The share of `replicas` at that capacity, rounded half up, at least 1 unless `replicas` is 0 (item 232)."""
    if target_capacity_percent is None or replicas == 0 or target_capacity_percent == 0:
        return 0 if target_capacity_percent == 0 else replicas
    return max(1, math.floor(replicas * target_capacity_percent / 100 + 0.5))
