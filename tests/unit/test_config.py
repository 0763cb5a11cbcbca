"""mesh.config: every option of a deployment has its default, its checks and its place in the message."""

import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.config import DeploymentConfig, with_options
from mesh.options.logging_options import LoggingConfig
from mesh.v1 import control_pb2

DEFAULTS = DeploymentConfig()


def config(**options: Any) -> DeploymentConfig:
    return with_options(DEFAULTS, options)


def test_defaults_are_the_contract_s() -> None:
    """Every option has its documented default (items 79, 95)."""
    assert (DEFAULTS.num_replicas, DEFAULTS.max_ongoing_requests, DEFAULTS.max_queued_requests) == (1, 5, -1)
    assert (DEFAULTS.graceful_shutdown_wait_loop_s, DEFAULTS.graceful_shutdown_timeout_s) == (2, 20)
    assert (DEFAULTS.health_check_period_s, DEFAULTS.health_check_timeout_s) == (10, 30)
    assert DEFAULTS.ray_actor_options == {"num_cpus": 1}
    assert DEFAULTS.max_constructor_retry_count == 20
    assert DEFAULTS.user_config is None
    assert DEFAULTS.queue_timeout_s is None
    assert DEFAULTS.isolate_user_loop is True


def test_no_number_of_replicas_means_one() -> None:
    """None counts as 1 (item 80)."""
    assert config(num_replicas=None).num_replicas == 1


def test_zero_replicas_are_refused_in_the_contract_s_words() -> None:
    """Zero is not a number of replicas (item 80)."""
    with pytest.raises(ValueError, match="num_replicas is expected to larger than 0"):
        config(num_replicas=0)


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("num_replicas", -1, ValueError),
        ("num_replicas", True, TypeError),
        ("num_replicas", 1.5, TypeError),
        ("num_replicas", "many", ValueError),
        ("max_ongoing_requests", None, ValueError),
        ("max_ongoing_requests", 0, ValueError),
        ("max_ongoing_requests", "5", TypeError),
        ("queue_timeout_s", 0, ValueError),
        ("queue_timeout_s", "1", TypeError),
        ("max_queued_requests", 0, ValueError),
        ("max_queued_requests", -2, ValueError),
        ("max_queued_requests", 1.0, TypeError),
        ("graceful_shutdown_timeout_s", -1, ValueError),
        ("graceful_shutdown_wait_loop_s", "2", TypeError),
        ("health_check_period_s", 0, ValueError),
        ("health_check_timeout_s", float("nan"), ValueError),
        ("health_check_timeout_s", float("inf"), ValueError),
        ("max_constructor_retry_count", 0, ValueError),
        ("progress_deadline_s", 0, ValueError),
        ("progress_deadline_s", float("inf"), ValueError),
        ("isolate_user_loop", 1, TypeError),
        ("user_config", {"lock": object()}, ValueError),
        ("ray_actor_options", "num_cpus", TypeError),
        ("ray_actor_options", {"lifetime": "detached"}, ValueError),
        ("max_replicas_per_node", "1", TypeError),
        ("max_replicas_per_node", 101, ValueError),
        ("placement_group_strategy", "PACK", ValueError),
        ("autoscaling_config", {"min_replicas": 2, "max_replicas": 1}, ValueError),
        ("logging_config", {"encoding": "XML"}, ValueError),
        ("logging_config", {"colour": "red"}, TypeError),
    ],
)
def test_a_wrong_value_is_refused_by_name(option: str, value: object, error: type[Exception]) -> None:
    """The message names the option (items 80, 83–88, 226, 235)."""
    with pytest.raises(error):
        config(**{option: value})


def test_logging_may_be_a_dict_or_a_record() -> None:
    """Both are stored alike (item 78)."""
    given = config(logging_config={"encoding": "json", "enable_access_log": False})
    assert given == config(logging_config=LoggingConfig(encoding="JSON", enable_access_log=False))
    assert given.to_message().logging == control_pb2.LoggingOptions(is_json=True, level=logging.INFO)
    assert not config().to_message().HasField("logging")


def test_options_that_are_none_are_the_defaults() -> None:
    assert config(autoscaling_config=None, placement_group_bundles=None, logging_config=None) == DEFAULTS


@pytest.mark.parametrize(
    ("options", "begins_with", "replicas_max"),
    [
        ({"num_replicas": "auto"}, 1, 100),
        ({"num_replicas": "auto", "autoscaling_config": {"max_replicas": 3}}, 1, 3),
        ({"autoscaling_config": {"min_replicas": 0, "max_replicas": 3}}, 0, 3),
        ({"autoscaling_config": {"initial_replicas": 2, "max_replicas": 3}}, 2, 3),
    ],
)
def test_the_number_of_replicas_may_follow_the_load(
    options: dict[str, Any], begins_with: int, replicas_max: int
) -> None:
    """Autoscaling begins with its initial or least number (items 82, 225)."""
    message = config(**options).to_message()
    assert (message.num_replicas, message.autoscaling.max_replicas) == (begins_with, replicas_max)


def test_of_a_fixed_number_and_autoscaling_the_later_one_counts() -> None:
    """A copy may change from one to the other (item 91)."""
    scaled = config(autoscaling_config={"max_replicas": 3})
    assert with_options(scaled, {"max_ongoing_requests": 7}).autoscaling_config == scaled.autoscaling_config
    fixed = with_options(scaled, {"num_replicas": 4})
    assert (fixed.num_replicas, fixed.autoscaling_config) == (4, None)
    assert with_options(fixed, {"num_replicas": "auto"}).autoscaling_config is not None
    assert not config().to_message().HasField("autoscaling")


def test_none_takes_neither_number_nor_autoscaling_away_by_the_way() -> None:
    """A number that is None says nothing; an `autoscaling_config` that is None ends autoscaling (items 80, 91)."""
    fixed, scaled = config(num_replicas=3), config(num_replicas="auto")
    for nothing in ({"num_replicas": None}, {"autoscaling_config": None}):
        assert with_options(fixed, nothing) == fixed
    assert with_options(scaled, {"num_replicas": None}) == scaled
    assert with_options(scaled, {"autoscaling_config": None}) == config()
    assert with_options(scaled, {"num_replicas": 2, "autoscaling_config": None}) == config(num_replicas=2)


def test_a_fixed_number_conflicts_with_autoscaling() -> None:
    """Both at once are refused (item 81)."""
    with pytest.raises(ValueError, match="Manually setting num_replicas is not allowed"):
        config(num_replicas=2, autoscaling_config={"max_replicas": 3})


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="gang_scheduling_config"):
        config(gang_scheduling_config=None)


def test_options_that_are_not_given_keep_their_values() -> None:
    """A copy differs only in what was given (item 91)."""
    first = config(num_replicas=3, max_queued_requests=7)
    second = with_options(first, {"num_replicas": 2})
    assert (second.num_replicas, second.max_queued_requests) == (2, 7)


def test_the_message_carries_where_replicas_run() -> None:
    """Placement reaches the controller complete (items 87, 88)."""
    assert config(max_replicas_per_node=2).to_message().max_replicas_per_node == 2
    message = config(placement_group_bundles=[{"CPU": 1, "disk": 2}, {"CPU": 3}]).to_message()
    assert [dict(bundle.resources) for bundle in message.placement_group_bundles] == [{"CPU": 1, "disk": 2}, {"CPU": 3}]
    assert message.placement_group_strategy == "PACK"
    spread = config(placement_group_bundles=[{"CPU": 1}], placement_group_strategy="SPREAD").to_message()
    assert spread.placement_group_strategy == "SPREAD"
    assert DEFAULTS.to_message().placement_group_strategy == ""


def test_the_message_carries_every_option() -> None:
    options: dict[str, Any] = {
        "num_replicas": 3,
        "max_ongoing_requests": 10,
        "max_queued_requests": 100,
        "queue_timeout_s": 1.5,
        "graceful_shutdown_wait_loop_s": 0.5,
        "graceful_shutdown_timeout_s": 0.0,
        "health_check_period_s": 1.5,
        "health_check_timeout_s": 2.5,
        "max_constructor_retry_count": 4,
        "isolate_user_loop": False,
    }
    message = config(**options, ray_actor_options={"num_cpus": 0.5, "resources": {"disk": 2}}).to_message()
    assert {name: getattr(message, name) for name in options} == options
    assert message.actor.num_cpus == 0.5
    assert dict(message.actor.resources) == {"disk": 2}


def test_an_empty_user_config_is_not_an_absent_one() -> None:
    """An empty `user_config` is delivered too (item 85)."""
    assert config(user_config={}).to_message().user_config_json == "{}"
    assert not DEFAULTS.to_message().HasField("user_config_json")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_JSON.filter(lambda value: value is not None))
def test_any_json_value_is_a_user_config(value: Any) -> None:
    """`user_config` may be any JSON value (item 85)."""
    assert json.loads(config(user_config=value).to_message().user_config_json) == value
