"""mesh.options.gateway.controller_options: `controller_options` of `mesh.start` and of files (items 59, 247)."""

from typing import Any

import pytest

from mesh.options.gateway import gateway_options
from mesh.options.gateway.controller_options import ControllerOptions, parse


def test_only_environment_variables_can_be_set() -> None:
    """A mistake says where packages belong (item 59)."""
    assert parse({"runtime_env": {"env_vars": {"ZONE": "a"}}}).env_vars == {"ZONE": "a"}
    assert parse(None).env_vars == parse({"runtime_env": None}).env_vars == {}
    with pytest.raises(
        ValueError, match=r"'pip': only env_vars can be set for the controller\. Give other runtime env"
    ):
        parse({"runtime_env": {"pip": ["torch"], "env_vars": {}}})


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"env_vars": {}}, TypeError, r"controller_options\['env_vars'\] is unknown"),
        ({"runtime_env": {"env_var": {}}}, ValueError, r"\['env_var'\] is unknown. Did you mean 'env_vars'\?"),
        ({"runtime_env": {"env_vars": {"A": 1}}}, TypeError, r"\['A'\] must be a string, got 1: put it into quotes"),
        ({"runtime_env": {1: {}}}, TypeError, r"A key of controller_options\['runtime_env'\] must be a string, got 1"),
        ([], TypeError, "controller_options must be a dict, got list"),
    ],
)
def test_wrong_options_are_named(options: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        parse(options)


def test_values_are_compared_and_not_stored() -> None:
    """They may be secrets, and the stored options are shown to everyone who asks for the status (item 59)."""
    with_secret = {"runtime_env": {"env_vars": {"PASSWORD": "hunter2", "ZONE": "a"}}}
    message = gateway_options.parse(None, None, None, controller_options=with_secret).to_message()
    assert b"hunter2" not in message.SerializeToString()
    other = gateway_options.parse(None, None, None, controller_options={}).to_message()
    assert gateway_options.differing_fields(message, other) == ["controller_options"]
    again = {"runtime_env": {"env_vars": {"ZONE": "a", "PASSWORD": "hunter2"}}}
    assert parse(again).digest() == parse(with_secret).digest() != ""
    assert ControllerOptions().digest() == ""
