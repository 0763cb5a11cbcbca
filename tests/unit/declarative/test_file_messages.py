"""Mistakes in configuration files, each with the message that says where it is, and what to write instead."""

from __future__ import annotations

import re
import textwrap

import pytest

from mesh.declarative import compose
from mesh.declarative.config_file import read_config
from mesh.declarative.yaml_positions import ConfigError


def mistakes(text: str) -> list[str]:
    """The findings in a file, without its name."""
    with pytest.raises(ConfigError) as caught:
        compose.load(*read_config(textwrap.dedent(text).lstrip("\n"), "mesh.yaml"))
    lines = [line for line in str(caught.value).splitlines() if line.startswith("mesh.yaml:")]
    return [line.removeprefix("mesh.yaml:") for line in lines]


@pytest.mark.parametrize("prefix", ["''", "None"])
def test_a_file_says_how_to_have_no_route(prefix: str) -> None:
    (line,) = mistakes(f"applications: [{{import_path: a:b, route_prefix: {prefix}}}]")
    assert line.startswith("1:49: applications[0].route_prefix: must start with '/', got ")
    assert "null in a file" in line


def test_a_number_for_a_name_needs_quotes() -> None:
    assert mistakes("applications: [{import_path: a:b, name: 5}]") == [
        "1:41: applications[0].name: Application name must be a non-empty string, got 5: put it into quotes."
    ]


@pytest.mark.parametrize(
    ("applications", "message"),
    [
        (
            "[{import_path: a:b, name: }]",
            "1:40: applications[0].name: Application name must be a non-empty string, got None: leave it out, or give "
            "it one.",
        ),
        (
            "['import_path:a:b']",
            "1:16: applications[0]: must be a mapping of fields to values, got 'import_path:a:b'. Is a space missing "
            "behind a colon?",
        ),
    ],
)
def test_what_is_missing_in_a_file(applications: str, message: str) -> None:
    assert mistakes(f"applications: {applications}") == [message]


def test_every_mistake_in_nested_options_is_named() -> None:
    text = """
        http_options: {port: x, root_path: x}
        grpc_options: {port: -1, request_timeout_s: soon}
        applications:
        - import_path: a:b
          deployments:
          - name: Front
            num_replicas: 2
            autoscaling_config: {min_replicas: 3, max_replicas: 1, upscale_delay_s: no}
            ray_actor_options: {num_cpus: x, num_gpus: y, resources: {disk: -1, tape: -2}}
        """
    front = "applications[0].deployments[0]"
    assert [re.split(":? (?:must|is) ", line)[0] for line in mistakes(text)] == [
        "1:22: http_options.port",
        "1:36: http_options.root_path",
        "2:22: grpc_options.port",
        "2:45: grpc_options.request_timeout_s",
        f"7:19: {front}.num_replicas: Manually setting num_replicas",
        f"8:57: {front}.autoscaling_config.max_replicas: (1)",
        f"8:77: {front}.autoscaling_config.upscale_delay_s",
        f"9:35: {front}.ray_actor_options.num_cpus",
        f"9:48: {front}.ray_actor_options.num_gpus",
        f"9:69: {front}.ray_actor_options.resources.disk",
        f"9:79: {front}.ray_actor_options.resources.tape",
    ]


def test_what_follows_from_a_mistake_is_no_other_mistake() -> None:
    """Without `max_replicas` its default is below `min_replicas`; only the type is at fault."""
    text = """
        applications:
        - import_path: a:b
          deployments: [{name: X, autoscaling_config: {min_replicas: 3, max_replicas: many}}]
        """
    (line,) = mistakes(text)
    assert line.endswith("autoscaling_config.max_replicas: must be an integer, got 'many'.")


def test_a_field_that_is_offered_for_a_misspelt_one_is_taken() -> None:
    assert mistakes("logging_confg: {}\napplications: []") == [
        "1:1: logging_confg: no such field: did you mean logging_config?"
    ]
    config, _ = read_config("logging_config: {log_level: DEBUG}\napplications: []", "mesh.yaml")
    assert config.logging_config == {"log_level": "DEBUG"}


@pytest.mark.parametrize("holder", ["", "deployments: [{name: X, ray_actor_options: {%s}}]"])
def test_a_misspelt_key_of_a_runtime_environment(holder: str) -> None:
    """Ray would ignore it, and the variable would be missing at run time."""
    key = "runtime_env: {env_var: {A: '1'}}"
    (line,) = mistakes(f"applications:\n- import_path: a:b\n  {holder % key if holder else key}")
    assert line.endswith("runtime_env.env_var: no such field: did you mean env_vars?")


def test_a_number_for_an_environment_variable_is_named_at_its_place() -> None:
    assert mistakes("applications:\n- import_path: a:b\n  runtime_env: {env_vars: {A: 1}}") == [
        "3:31: applications[0].runtime_env.env_vars.A: must be a string, got 1: put it into quotes."
    ]


def test_a_wrong_servicer_function_is_named_at_its_place() -> None:
    text = """
        grpc_options:
          grpc_servicer_functions: [json:add_X_to_server, nowhere:add_Y_to_server]
        applications: []
        """
    assert mistakes(text) == [
        "2:29: grpc_options.grpc_servicer_functions[0]: "
        "Module 'json' has no 'add_X_to_server', named by the servicer function 'json:add_X_to_server'.",
        "2:51: grpc_options.grpc_servicer_functions[1]: "
        "No module named 'nowhere', needed for the gRPC servicer function 'nowhere:add_Y_to_server'. "
        "Is the generated code on the Python path?",
    ]
