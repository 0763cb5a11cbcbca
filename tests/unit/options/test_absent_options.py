"""mesh.options.absent_options: a configuration from Ray Serve gets advice for each option that is absent."""

from collections.abc import Callable
from typing import Any

import pytest

import mesh
from mesh.declarative.config_file import read_config
from mesh.declarative.file_schema import APPLICATION_FIELDS, DEPLOYMENT_OPTIONS, NESTED_FIELDS, TOP_FIELDS
from mesh.declarative.yaml_positions import ConfigError
from mesh.options import absent_options
from mesh.options.absent_options import ADVICE


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (
            lambda: mesh.deployment(autoscaling_config={"prometheus_metrics": ["up"]})(object),
            r"autoscaling_config\['prometheus_metrics'\] is an option of Ray Serve that the mesh does not have. Leave",
        ),
        (
            lambda: mesh.deployment(autoscaling_config={"max_replica": 2})(object),
            r"autoscaling_config\['max_replica'\] is unknown. Did you mean 'max_replicas'\?",
        ),
        (
            lambda: mesh.deployment(logging_config={"level": 2})(object),
            r"\['level'\] is unknown. Did you mean 'log_lev",
        ),
        (
            lambda: mesh.start(grpc_options={"fallback_strategy": True}),
            r"grpc_options\['fallback_strategy'\] is an option of Ray Serve that the mesh does not have. Leave it out",
        ),
        (lambda: mesh.start(grpc_options={"host": "x"}), r"grpc_options\['host'\] is unknown. "),
    ],
)
def test_options_that_are_not_there(use: Callable[[], object], message: str) -> None:
    """The error says what to do instead (items 55, 225, 235)."""
    with pytest.raises(TypeError, match=message):
        use()


@pytest.mark.parametrize(
    ("options", "kind", "advice"),
    [
        ({"ray_actor_options": {"label_selector": {}}}, ValueError, "use custom resources or accelerator_type"),
        ({"ray_actor_options": {"fallback_strategy": []}}, ValueError, "use custom resources to choose nodes"),
        ({"gang_scheduling_config": {}}, TypeError, "use placement_group_bundles for what one replica needs together"),
        ({"deployment_actors": []}, TypeError, "start actors in the constructor, or bind another deployment"),
        ({"placement_group_bundle_label_selector": []}, TypeError, "use custom resources in the bundles"),
    ],
)
def test_options_of_placement_that_are_not_there(options: dict[str, Any], kind: type[Exception], advice: str) -> None:
    """Each is refused with what to do instead (items 86, 95)."""
    with pytest.raises(kind, match=f"is an option of Ray Serve that the mesh does not have.*{advice}"):
        mesh.deployment(**options)(object)


def test_files_say_it_at_the_place() -> None:
    """Files name line and column (items 247–249)."""
    text = "applications:\n- import_path: a:b\n  deployments: [{name: X, label_selector: {}}]\n"
    text += "external_scaler_enabled: true"
    with pytest.raises(ConfigError) as caught:
        read_config(text, "serve.yaml")
    assert str(caught.value).splitlines()[1:] == [
        "serve.yaml:3:27: applications[0].deployments[0].label_selector: is an option of Ray Serve that the mesh "
        f"does not have. Leave it out: {ADVICE['label_selector']}.",
        "serve.yaml:4:1: external_scaler_enabled: is an option of Ray Serve that the mesh does not have. Leave it "
        f"out: {ADVICE['external_scaler_enabled']}.",
    ]


def test_what_is_there_is_not_called_absent() -> None:
    there = {
        *TOP_FIELDS,
        *APPLICATION_FIELDS,
        *DEPLOYMENT_OPTIONS,
        *(each for some in NESTED_FIELDS.values() for each in some),
    }
    assert not there & absent_options.ADVICE.keys()
