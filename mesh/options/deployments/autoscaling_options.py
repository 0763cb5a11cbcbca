"""`autoscaling_config` and its combination with `num_replicas`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from mesh.options import option_checks
from mesh.options.deployments import autoscaling_policy
from mesh.options.deployments.autoscaling_policy import AutoscalingPolicy
from mesh.options.keyword_advice import with_field_advice
from mesh.options.option_record import record_of
from mesh.v1 import control_pb2

_AUTO_MAX_REPLICAS = 100


class AggregationFunction(StrEnum):
    """How the loads of the look-back period become one number."""

    MEAN = "mean"
    MAX = "max"
    MIN = "min"


_AGGREGATIONS: Mapping[str, control_pb2.Aggregation] = {
    AggregationFunction.MEAN: control_pb2.AGGREGATION_MEAN,
    AggregationFunction.MAX: control_pb2.AGGREGATION_MAX,
    AggregationFunction.MIN: control_pb2.AGGREGATION_MIN,
}
_FACTORS = ("upscaling_factor", "downscaling_factor", "upscale_smoothing_factor", "downscale_smoothing_factor")


class _DefaultBound(int):
    """A bound that was not given: where `num_replicas` is "auto" it is another one."""


_MAX_REPLICAS = _DefaultBound(1)


@with_field_advice
@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalingConfig:
    """Bounds of the number of replicas of a deployment, and how fast it follows the load. Times are in seconds."""

    min_replicas: int = 1
    """0: the last replica stops after a time without calls; the next call waits until a new one has started."""
    initial_replicas: int | None = None
    """None: `min_replicas`."""
    max_replicas: int = _MAX_REPLICAS
    target_ongoing_requests: float = 2
    """Target number of running and queued requests per replica."""
    metrics_interval_s: float = 10.0
    """How often callers and replicas report their load."""
    look_back_period_s: float = 30.0
    """Period over which requests are aggregated."""
    aggregation_function: str = "mean"
    """How requests are aggregated: "mean", "max" or "min"."""
    smoothing_factor: float = 1.0
    """Above 1 the number of replicas changes more than the load requires, below 1 less."""
    upscaling_factor: float | None = None
    """Replaces `smoothing_factor` when replicas are added."""
    downscaling_factor: float | None = None
    """Replaces `smoothing_factor` when replicas are removed."""
    upscale_smoothing_factor: float | None = None
    """Old name of `upscaling_factor`."""
    downscale_smoothing_factor: float | None = None
    upscale_delay_s: float = 30.0
    """How long the load must require more replicas before they are started."""
    downscale_delay_s: float = 600.0
    """How long the load must require fewer replicas before some are stopped."""
    downscale_to_zero_delay_s: float | None = None
    """The same for the last replica; None: `downscale_delay_s`."""
    policy: AutoscalingPolicy | Mapping[str, Any] | Callable[..., Any] | str | None = None
    """A custom function that replaces the built-in rule; see `AutoscalingPolicy`."""

    external_scaler: bool = False
    """`mesh scale` sets the number, within the bounds, and the load does not."""

    def __post_init__(self) -> None:
        if not isinstance(self.external_scaler, bool):
            raise TypeError(f"external_scaler must be True or False, got {self.external_scaler!r}.")
        if self.external_scaler and self.policy is not None:
            raise ValueError("external_scaler and policy exclude each other: give one of them.")
        option_checks.whole_number("min_replicas", self.min_replicas, 0, option_checks.REPLICAS_MAX)
        option_checks.whole_number("max_replicas", self.max_replicas, 1, option_checks.REPLICAS_MAX)
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas ({self.max_replicas}) must be at least min_replicas ({self.min_replicas}).")
        if self.initial_replicas is not None:
            option_checks.whole_number("initial_replicas", self.initial_replicas, self.min_replicas, self.max_replicas)
        for name in ("target_ongoing_requests", "metrics_interval_s", "look_back_period_s", "smoothing_factor"):
            option_checks.number(name, getattr(self, name), may_equal=False)
        for name in _FACTORS:
            if getattr(self, name) is not None:
                option_checks.number(name, getattr(self, name), may_equal=False)
        for name in ("upscale_delay_s", "downscale_delay_s", "downscale_to_zero_delay_s"):
            if getattr(self, name) is not None or name != "downscale_to_zero_delay_s":
                option_checks.number(name, getattr(self, name))
        if not isinstance(self.aggregation_function, str) or self.aggregation_function not in _AGGREGATIONS:
            expected = ", ".join(_AGGREGATIONS)
            raise ValueError(f"aggregation_function must be one of {expected}, got {self.aggregation_function!r}.")
        if self.policy is not None:
            object.__setattr__(self, "policy", autoscaling_policy.parse(self.policy))

    @property
    def first_replicas(self) -> int:
        """The number of replicas with which a deployment starts."""
        return self.min_replicas if self.initial_replicas is None else self.initial_replicas

    def to_message(self) -> control_pb2.AutoscalingOptions:
        """The options as the controller stores them, with all defaults filled in."""
        to_zero_s = self.downscale_to_zero_delay_s
        return control_pb2.AutoscalingOptions(
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
            initial_replicas=self.initial_replicas,
            target_ongoing_requests=self.target_ongoing_requests,
            metrics_interval_s=self.metrics_interval_s,
            look_back_period_s=self.look_back_period_s,
            upscaling_factor=self.upscaling_factor or self.upscale_smoothing_factor or self.smoothing_factor,
            downscaling_factor=self.downscaling_factor or self.downscale_smoothing_factor or self.smoothing_factor,
            upscale_delay_s=self.upscale_delay_s,
            downscale_delay_s=self.downscale_delay_s,
            downscale_to_zero_delay_s=self.downscale_delay_s if to_zero_s is None else to_zero_s,
            aggregation=_AGGREGATIONS[self.aggregation_function],
            policy=self.policy.to_message() if isinstance(self.policy, AutoscalingPolicy) else None,
            is_external=self.external_scaler,
        )


def parse(config: AutoscalingConfig | Mapping[str, Any]) -> AutoscalingConfig:
    """Raises TypeError for unknown fields and wrong types, ValueError for contradictions."""
    return record_of(AutoscalingConfig, "autoscaling_config", config)


def of(num_replicas: object, config: AutoscalingConfig | Mapping[str, Any] | None) -> AutoscalingConfig | None:
    """The autoscaling that both options define; None for a fixed number. Raises ValueError on a conflict."""
    if num_replicas == "auto":
        explicit = config if config is not None else {}
        if isinstance(explicit, AutoscalingConfig):
            is_given = not isinstance(explicit.max_replicas, _DefaultBound)
            return explicit if is_given else replace(explicit, max_replicas=_AUTO_MAX_REPLICAS)
        return parse({"max_replicas": _AUTO_MAX_REPLICAS, **option_checks.mapping("autoscaling_config", explicit)})
    if isinstance(num_replicas, str):
        raise ValueError(f'num_replicas must be an integer or "auto", got {num_replicas!r}.')
    if config is None:
        return None
    if num_replicas is not None:
        raise ValueError(
            "Manually setting num_replicas is not allowed when autoscaling_config is provided. Leave one of them out."
        )
    return parse(config)
