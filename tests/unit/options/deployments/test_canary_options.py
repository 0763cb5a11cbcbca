"""mesh.options.deployments.rollout_policy: which requests a canary gets, in options and files."""

from typing import Any

import pytest

from mesh.declarative.config_file import read_config
from mesh.declarative.yaml_positions import ConfigError
from mesh.options.deployments.rollout_policy import traffic_rule
from mesh.v1 import control_pb2


def test_a_share_a_match_or_both_make_a_canary() -> None:
    assert traffic_rule(None, None) is None
    assert traffic_rule(10, None) == control_pb2.TrafficRule(percent=10)
    assert traffic_rule(None, {"X-Canary": "yes"}) == control_pb2.TrafficRule(header="x-canary", value="yes")
    both = control_pb2.TrafficRule(percent=0.5, header="x-canary")
    assert traffic_rule(0.5, {"x-canary": ""}) == both


@pytest.mark.parametrize(
    ("percent", "match", "message"),
    [
        (101, None, "at most 100"),
        (0, None, "more than 0"),
        ("10", None, "must be a number"),
        (None, {"a": "1", "b": "2"}, "one header field"),
        (None, {"x-canary": True}, "Quote numbers"),
        (None, {"grpc-canary": "1"}, "not a name of a header field"),
        (None, {"x canary": "1"}, "not a name of a header field"),
        (None, {"x-canary-bin": "1"}, "not a name of a header field"),
    ],
)
def test_what_selects_no_requests_is_refused(percent: Any, match: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        traffic_rule(percent, match)


def test_files_have_it_and_say_where_it_is_wrong() -> None:
    text = "applications:\n- import_path: a:b\n  traffic_percent: {}\n"
    config, _ = read_config(text.format(5), "mesh.yaml")
    assert config.applications[0].traffic_percent == 5
    with pytest.raises(ConfigError, match=r"mesh.yaml:3:.*traffic_percent: must be at most 100"):
        read_config(text.format(500), "mesh.yaml")
