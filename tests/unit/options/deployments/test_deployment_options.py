"""mesh.options.deployments.deployment_options: the keywords of the decorator (item 78)."""

from dataclasses import fields
from typing import Any

import pytest

from mesh.config import DeploymentConfig
from mesh.deployment import deployment
from mesh.options.deployments.deployment_options import OPTION_NAMES


class Model:
    pass


def test_the_keywords_are_the_configuration_s_fields_and_some_more() -> None:
    """No field of DeploymentConfig is missing among the keywords."""
    others = {"name", "version", "route_prefix", "logging_config", "rolling_update_percentage"}
    assert set(OPTION_NAMES) == {each.name for each in fields(DeploymentConfig)} | others


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"num_replica": 2}, "Did you mean 'num_replicas'"),
        ({"label_selector": {}}, "use custom resources"),
        ({"num_cpus": 2}, r"num_cpus is one of ray_actor_options: write ray_actor_options=\{'num_cpus': ...\}."),
    ],
)
def test_an_unknown_option_is_refused_with_advice(options: dict[str, Any], advice: str) -> None:
    """The decorator and `.options()` say what to write instead."""
    with pytest.raises(TypeError, match=advice):
        deployment(**options)
    with pytest.raises(TypeError, match=advice):
        deployment(Model).options(**options)
