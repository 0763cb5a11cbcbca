"""mesh.options.deployments.autoscaling_options: what `autoscaling_config` and `num_replicas` ask for together."""

import pickle
from dataclasses import replace
from typing import Any

import pytest

from mesh.options.deployments.autoscaling_options import AggregationFunction, AutoscalingConfig, of, parse


def test_auto_means_one_to_a_hundred_replicas() -> None:
    """The target is two requests per replica (item 82)."""
    config = of("auto", None)
    assert config is not None
    assert (config.min_replicas, config.max_replicas, config.target_ongoing_requests) == (1, 100, 2)


def test_explicit_fields_come_on_top_of_auto() -> None:
    """A field replaces its value, not the others (item 82)."""
    config = of("auto", {"min_replicas": 2, "target_ongoing_requests": 1})
    assert config is not None
    assert (config.min_replicas, config.max_replicas, config.target_ongoing_requests) == (2, 100, 1)


@pytest.mark.parametrize(("given", "replicas_max"), [({}, 100), ({"max_replicas": 1}, 1), ({"max_replicas": 7}, 7)])
def test_of_a_record_on_top_of_auto_only_what_was_given_counts(given: dict[str, int], replicas_max: int) -> None:
    """As of a dict, also after a copy of it has travelled (item 82)."""
    record = pickle.loads(pickle.dumps(replace(AutoscalingConfig(**given), target_ongoing_requests=5)))
    assert of("auto", record) == AutoscalingConfig(max_replicas=replicas_max, target_ongoing_requests=5)


def test_a_number_alone_is_no_autoscaling() -> None:
    assert of(3, None) is None
    assert of(None, None) is None


def test_a_config_alone_is_autoscaling() -> None:
    assert of(None, AutoscalingConfig(max_replicas=4)) == AutoscalingConfig(max_replicas=4)


def test_a_number_and_a_config_conflict() -> None:
    """One of them has to be left out (item 81)."""
    with pytest.raises(ValueError, match="Manually setting num_replicas"):
        of(1, {"max_replicas": 2})


def test_other_words_than_auto_are_refused() -> None:
    """The error shows the only word there is (item 82)."""
    with pytest.raises(ValueError, match='"auto"'):
        of("automatic", None)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"min_replicas": 3, "max_replicas": 2}, ValueError),
        ({"min_replicas": 1, "max_replicas": 2, "initial_replicas": 3}, ValueError),
        ({"min_replicas": -1}, ValueError),
        ({"target_ongoing_requests": 0}, ValueError),
        ({"upscaling_factor": 0}, ValueError),
        ({"upscale_delay_s": -1}, ValueError),
        ({"downscale_to_zero_delay_s": -1}, ValueError),
        ({"upscale_delay_s": None}, TypeError),
        ({"upscale_smoothing_factor": 0}, ValueError),
        ({"aggregation_function": "median"}, ValueError),
        ({"policy": "shop.scaling"}, ValueError),
        ({"max_replicas": "3"}, TypeError),
        ({"replicas": 3}, TypeError),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], error: type[Exception]) -> None:
    """Bounds, factors and delays are checked (items 225, 226)."""
    with pytest.raises(error):
        parse(fields)


def test_nothing_is_left_to_default_for_the_controller() -> None:
    """The stored message has every value (item 225)."""
    message = AutoscalingConfig(smoothing_factor=0.5, downscaling_factor=0.2, downscale_delay_s=7).to_message()
    assert (message.min_replicas, message.max_replicas, message.target_ongoing_requests) == (1, 1, 2.0)
    assert (message.metrics_interval_s, message.look_back_period_s) == (10.0, 30.0)
    assert (message.upscaling_factor, message.downscaling_factor) == (0.5, 0.2)
    assert (message.upscale_delay_s, message.downscale_delay_s, message.downscale_to_zero_delay_s) == (30.0, 7.0, 7.0)
    assert not message.HasField("initial_replicas")
    assert not message.HasField("policy")


def test_the_last_replica_may_go_at_once() -> None:
    assert AutoscalingConfig(downscale_to_zero_delay_s=0).to_message().downscale_to_zero_delay_s == 0.0


@pytest.mark.parametrize("function", list(AggregationFunction))
def test_the_aggregation_is_named_by_string_or_enum(function: AggregationFunction) -> None:
    """Both mean the same (item 225)."""
    by_enum, by_name = (AutoscalingConfig(aggregation_function=each) for each in (function, function.value))
    assert by_enum.to_message() == by_name.to_message()
