"""mesh.autoscaling_options: what `autoscaling_config` and `num_replicas` ask for together."""

from typing import Any

import pytest

from mesh.autoscaling_options import AutoscalingConfig, of, parse


def test_auto_means_one_to_a_hundred_replicas() -> None:
    """Item 82."""
    config = of("auto", None)
    assert config is not None
    assert (config.min_replicas, config.max_replicas, config.target_ongoing_requests) == (1, 100, 2)


def test_explicit_fields_come_on_top_of_auto() -> None:
    """Item 82."""
    config = of("auto", {"min_replicas": 2, "target_ongoing_requests": 1})
    assert config is not None
    assert (config.min_replicas, config.max_replicas, config.target_ongoing_requests) == (2, 100, 1)


def test_a_number_alone_is_no_autoscaling() -> None:
    assert of(3, None) is None
    assert of(None, None) is None


def test_a_config_alone_is_autoscaling() -> None:
    assert of(None, AutoscalingConfig(max_replicas=4)) == AutoscalingConfig(max_replicas=4)


def test_a_number_and_a_config_conflict() -> None:
    """Item 81."""
    with pytest.raises(ValueError, match="Manually setting num_replicas"):
        of(1, {"max_replicas": 2})


def test_other_words_than_auto_are_refused() -> None:
    """Item 82."""
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
        ({"max_replicas": "3"}, TypeError),
        ({"replicas": 3}, TypeError),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], error: type[Exception]) -> None:
    """Items 225, 226."""
    with pytest.raises(error):
        parse(fields)
