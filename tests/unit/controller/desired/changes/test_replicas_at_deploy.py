"""mesh.controller.desired.changes.replicas_at_deploy: with how many replicas a deployment is deployed (item 234)."""

from typing import Any

from mesh.controller.desired.changes.replicas_at_deploy import replicas_at_deploy
from mesh.options.deployments.autoscaling_options import AutoscalingConfig
from mesh.v1 import control_pb2


def options(num_replicas: int = 0, user_config: str = "1", **autoscaling: Any) -> control_pb2.DeploymentOptions:
    return control_pb2.DeploymentOptions(
        num_replicas=num_replicas,
        user_config_json=user_config,
        autoscaling=AutoscalingConfig(**autoscaling).to_message(),
    )


def test_a_new_deployment_begins_with_its_initial_or_fewest_replicas() -> None:
    assert replicas_at_deploy(None, options(min_replicas=2, max_replicas=9)) == 2
    assert replicas_at_deploy(None, options(max_replicas=9, initial_replicas=4)) == 4
    assert replicas_at_deploy(None, control_pb2.DeploymentOptions(num_replicas=3)) == 3


def test_a_redeployment_keeps_the_number_within_the_new_bounds() -> None:
    """The present number is clipped, not reset (item 234)."""
    before = options(5, max_replicas=9)
    assert replicas_at_deploy(before, options(max_replicas=9)) == 5
    assert replicas_at_deploy(before, options(max_replicas=3)) == 3
    assert replicas_at_deploy(before, options(min_replicas=7, max_replicas=9)) == 7


def test_a_redeployment_with_initial_replicas_jumps_there_if_its_options_changed() -> None:
    """Without a change the present number stays (item 234)."""
    before = options(5, max_replicas=9, initial_replicas=2)
    assert replicas_at_deploy(before, options(max_replicas=9, initial_replicas=2)) == 5
    assert replicas_at_deploy(before, options(max_replicas=9, initial_replicas=3)) == 3
    assert replicas_at_deploy(before, options(max_replicas=9, initial_replicas=2, user_config="2")) == 2


def test_autoscaling_takes_over_from_a_fixed_number_and_back() -> None:
    fixed = control_pb2.DeploymentOptions(num_replicas=4)
    assert replicas_at_deploy(fixed, options(max_replicas=9)) == 4
    assert replicas_at_deploy(options(6, max_replicas=9), fixed) == 4
