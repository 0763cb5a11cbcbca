"""Owns `autoscaling_config` and how it goes with `num_replicas`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mesh import checks

_AUTO_MAX_REPLICAS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalingConfig:
    """How many replicas a deployment may have, and how fast their number follows the load."""

    min_replicas: int = 1
    initial_replicas: int | None = None
    max_replicas: int = 1
    target_ongoing_requests: float = 2
    """Requests running or queued per replica that the number of replicas aims at."""
    metrics_interval_s: float = 10.0
    look_back_period_s: float = 30.0
    smoothing_factor: float = 1.0
    upscaling_factor: float | None = None
    downscaling_factor: float | None = None
    upscale_delay_s: float = 30.0
    downscale_delay_s: float = 600.0

    def __post_init__(self) -> None:
        checks.whole_number("min_replicas", self.min_replicas, 0)
        checks.whole_number("max_replicas", self.max_replicas, 1)
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas ({self.max_replicas}) must be at least min_replicas ({self.min_replicas}).")
        if self.initial_replicas is not None:
            checks.whole_number("initial_replicas", self.initial_replicas, self.min_replicas, self.max_replicas)
        for name in ("target_ongoing_requests", "metrics_interval_s", "look_back_period_s", "smoothing_factor"):
            checks.number(name, getattr(self, name), may_equal=False)
        for name in ("upscaling_factor", "downscaling_factor"):
            if getattr(self, name) is not None:
                checks.number(name, getattr(self, name), may_equal=False)
        for name in ("upscale_delay_s", "downscale_delay_s"):
            checks.number(name, getattr(self, name))


def parse(config: AutoscalingConfig | Mapping[str, Any]) -> AutoscalingConfig:
    """Raises TypeError for unknown fields and wrong types, ValueError for contradictions."""
    if isinstance(config, AutoscalingConfig):
        return config
    return AutoscalingConfig(**checks.mapping("autoscaling_config", config))  # type: ignore[arg-type]


def of(num_replicas: object, config: AutoscalingConfig | Mapping[str, Any] | None) -> AutoscalingConfig | None:
    """The autoscaling that both options together ask for, None for a fixed number. Raises ValueError on a conflict."""
    if num_replicas == "auto":
        explicit = config if config is not None else {}
        if isinstance(explicit, AutoscalingConfig):
            return explicit
        return parse({"max_replicas": _AUTO_MAX_REPLICAS, **checks.mapping("autoscaling_config", explicit)})
    if isinstance(num_replicas, str):
        raise ValueError(f'num_replicas must be an integer or "auto", got {num_replicas!r}.')
    if config is None:
        return None
    if num_replicas is not None:
        raise ValueError(
            "Manually setting num_replicas is not allowed when autoscaling_config is provided. Leave one of them out."
        )
    return parse(config)
