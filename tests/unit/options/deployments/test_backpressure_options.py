"""The option `backpressure_config` of deployments (item 95)."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.config import DeploymentConfig
from mesh.options.deployments.backpressure_options import BackpressureConfig, parse


def test_defaults_are_503_without_retry_after() -> None:
    assert parse({}) == BackpressureConfig(status_code=503, retry_after_s=None)
    assert not parse({}).to_message().HasField("retry_after_s")


def test_a_deployment_without_it_sends_none() -> None:
    assert DeploymentConfig().backpressure_config is None
    assert not DeploymentConfig().to_message().HasField("backpressure")


def test_it_reaches_the_controller() -> None:
    given: Any = {"status_code": 429, "retry_after_s": 0}
    config = DeploymentConfig(backpressure_config=given)
    assert config.backpressure_config == BackpressureConfig(status_code=429, retry_after_s=0)
    message = config.to_message().backpressure
    assert (message.status_code, message.HasField("retry_after_s"), message.retry_after_s) == (429, True, 0.0)
    assert DeploymentConfig(backpressure_config=config.backpressure_config) == config


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (429, TypeError, "backpressure_config must be a dict"),
        ({"status": 429}, TypeError, r"backpressure_config\['status'\] is unknown. Did you mean 'status_code'"),
        ({"status_code": 500}, ValueError, r"\['status_code'\] must be 429 or 503, got 500"),
        ({"status_code": True}, ValueError, r"\['status_code'\] must be 429 or 503"),
        ({"status_code": "429"}, ValueError, r"\['status_code'\] must be 429 or 503"),
        ({"retry_after_s": -1}, ValueError, r"\['retry_after_s'\] must be at least 0"),
        ({"retry_after_s": "1"}, TypeError, r"\['retry_after_s'\] must be a number"),
    ],
)
def test_wrong_values_say_what_is_wrong(value: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        DeploymentConfig(backpressure_config=value)
