"""mesh.controller.desired.autoscaling_targets: bounds, and the capacity that they are for (items 225–233)."""

from typing import Any

import pytest

from mesh.controller.desired.autoscaling_targets import ScalingRules, at_capacity, read_rules
from mesh.options.deployments.autoscaling_options import AutoscalingConfig
from mesh.v1 import control_pb2


def options(**autoscaling: Any) -> control_pb2.DeploymentOptions:
    return control_pb2.DeploymentOptions(autoscaling=AutoscalingConfig(**autoscaling).to_message())


def test_options_reach_the_rules_with_their_defaults() -> None:
    """Factors and delays that are not given have the value of the option they depend on (item 225)."""
    assert read_rules(options(max_replicas=9).autoscaling) == ScalingRules(max_replicas=9)
    config = AutoscalingConfig(
        max_replicas=9, smoothing_factor=0.5, upscaling_factor=2.0, downscale_to_zero_delay_s=7, policy="m:f"
    )
    rules = read_rules(config.to_message())
    assert (rules.upscaling_factor, rules.downscaling_factor) == (2.0, 0.5)
    assert (rules.downscale_delay_s, rules.downscale_to_zero_delay_s, rules.policy) == (600.0, 7.0, "m:f")


def test_old_names_of_the_factors_are_understood() -> None:
    """The older names of the factors set the same rules (item 225)."""
    config = AutoscalingConfig(upscale_smoothing_factor=3.0, downscale_smoothing_factor=0.3)
    rules = read_rules(config.to_message())
    assert (rules.upscaling_factor, rules.downscaling_factor) == (3.0, 0.3)


@pytest.mark.parametrize(
    ("replicas", "percent", "expected"),
    [(10, None, 10), (10, 50, 5), (5, 50, 3), (1, 10, 1), (3, 50, 2), (0, 50, 0), (10, 0, 0), (10, 100, 10)],
)
def test_capacity_scales_the_bounds(replicas: int, percent: float | None, expected: int) -> None:
    """Rounded half up, at least 1; only a capacity of zero gives zero (item 232)."""
    assert at_capacity(replicas, percent) == expected


def test_bounds_are_those_of_the_capacity() -> None:
    rules = read_rules(options(min_replicas=2, max_replicas=10).autoscaling, target_capacity_percent=50)
    assert (rules.min_replicas, rules.max_replicas) == (1, 5)


@pytest.mark.parametrize(("interval_s", "expiry_s"), [(10.0, 20.0), (1.0, 10.0)])
def test_loads_expire(interval_s: float, expiry_s: float) -> None:
    """A load expires after two intervals, at least 10 s (item 233)."""
    assert ScalingRules(metrics_interval_s=interval_s).expiry_s == expiry_s
