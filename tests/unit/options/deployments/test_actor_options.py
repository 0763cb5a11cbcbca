"""mesh.options.deployments.actor_options: what `ray_actor_options` accepts (item 86) and how it is stored."""

import json
from typing import Any

import pytest
from ray.runtime_env import RuntimeEnv

from mesh.options import runtime_env
from mesh.options.deployments.actor_options import checked, to_message


def test_one_cpu_is_held_unless_said_otherwise() -> None:
    """`num_cpus` defaults to 1 (item 79)."""
    assert checked(None) == {"num_cpus": 1}
    assert checked({"num_cpus": None}) == {"num_cpus": 1}
    assert checked({"num_cpus": 0}) == {"num_cpus": 0}


def test_the_given_dict_is_not_changed() -> None:
    given: dict[str, Any] = {"num_gpus": 1}
    checked(given)
    assert given == {"num_gpus": 1}


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ([], TypeError, "must be a dict"),
        ({"name": "x"}, ValueError, "is unknown. There are: accelerator_type, "),
        ({"num_cpus": -1}, ValueError, "num_cpus"),
        ({"num_gpus": "one"}, TypeError, "num_gpus"),
        ({"accelerator_type": 4}, TypeError, "accelerator_type"),
        ({"resources": {"disk": -1}}, ValueError, "disk"),
        ({"resources": ["disk"]}, TypeError, "resources"),
        ({"resources": {1: 1}}, TypeError, "name of a resource .* got 1"),
        ({"resources": {"": 1}}, ValueError, "empty name"),
        ({"resources": {"CPU": 1}}, ValueError, "'num_cpus'"),
        ({1: 2}, ValueError, r"\[1\] is unknown. There are: accelerator_type, "),
        ({"runtime_env": {"config": object()}}, ValueError, "runtime_env"),
        ({"runtime_env": {"env_var": {}}}, ValueError, "Did you mean 'env_vars'"),
        ({"runtime_env": {"env_vars": {"A": 1}}}, TypeError, r"\['A'\] must be a string, got 1"),
    ],
)
def test_wrong_options_are_named(options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        checked(options)


def test_the_message_carries_every_option() -> None:
    options = checked(
        {
            "num_cpus": 2,
            "num_gpus": 0.5,
            "memory": 1e9,
            "resources": {"disk": 3},
            "accelerator_type": "T4",
            "runtime_env": {"env_vars": {"A": "b"}},
        }
    )
    message = to_message(options)
    assert (message.num_cpus, message.num_gpus, message.memory_bytes) == (2, 0.5, 10**9)
    assert (message.accelerator_type, dict(message.resources)) == ("T4", {"disk": 3})
    assert json.loads(message.runtime_env_json) == {"env_vars": {"A": "b"}}


def test_no_runtime_env_is_stored_as_nothing() -> None:
    assert to_message(checked(None)).runtime_env_json == ""


def test_all_keys_that_ray_knows_are_known() -> None:
    """Ray itself ignores any other (item 86)."""
    internal = RuntimeEnv.extensions_fields
    assert {name.removeprefix("_") for name in RuntimeEnv.known_fields - internal} <= set(runtime_env.KEYS)
    assert runtime_env.checked("runtime_env", {"_ray_commit": "abc"}) == {"_ray_commit": "abc"}
