"""Settings: defaults, overridden by the environment, with errors that name the variable."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields

import pytest

from mesh.defaults.control_settings import LogSettings
from mesh.settings import Settings, settings, variable_of


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    settings.cache_clear()
    yield
    settings.cache_clear()


def test_defaults_hold_where_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for group in fields(Settings):
        for field in fields(group.default_factory):
            monkeypatch.delenv(variable_of(group.default_factory, field.name), raising=False)
    assert settings() == Settings()
    assert settings() is settings()


def test_the_environment_overrides_with_the_fields_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_STREAM_CREDITS", "7")
    monkeypatch.setenv("MESH_LINK_CONNECT_TIMEOUT_S", "0.5")
    monkeypatch.setenv("MESH_SERVER_HOST", "127.0.0.1")
    read = settings()
    assert (read.payload.stream_credits, read.link.connect_timeout_s, read.process.server_host) == (7, 0.5, "127.0.0.1")


def test_a_misspelt_variable_is_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Variables of other software pass."""
    monkeypatch.setenv("MESH_STREAM_CREDIT", "7")
    monkeypatch.setenv("MESH_TOKEN", "of another mesh")
    with caplog.at_level(logging.WARNING, "mesh"):
        settings()
    (message,) = caplog.messages
    assert message == "MESH_STREAM_CREDIT is not a setting and has no effect. Did you mean MESH_STREAM_CREDITS?"


def test_a_bad_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_PART_BYTES", "many")
    with pytest.raises(ValueError, match="MESH_PART_BYTES='many' is not a valid int"):
        settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MESH_STREAM_CREDITS", "0"),
        ("MESH_PART_BYTES", "-1"),
        ("MESH_PART_BYTES", "100000000"),
        ("MESH_CONTROL_TIMEOUT_S", "nan"),
        ("MESH_SYNC_REPORT_INTERVAL_S", "inf"),
        ("MESH_LINK_CONNECT_TIMEOUT_S", "-0.001"),
    ],
)
def test_values_with_which_nothing_would_work_are_refused(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=f"{variable}=.* is out of range"):
        settings()


def test_zero_turns_off_what_can_be_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_OBJECT_STORE_MIN_BYTES", "0")
    monkeypatch.setenv("MESH_GATEWAY_LAME_DUCK_S", "0")
    assert (settings().payload.object_store_min_bytes, settings().gateway.lame_duck_s) == (0, 0)


def test_no_variable_chooses_format_level_or_place_of_logs() -> None:
    """A logging_config does (item 239)."""
    of_logs = {variable_of(LogSettings, field.name) for field in fields(LogSettings)}
    assert not [each for each in of_logs if any(word in each for word in ("ENCODING", "FORMAT", "LEVEL", "DIR"))]


def test_no_two_settings_share_a_variable() -> None:
    variables = [
        variable_of(group.default_factory, field.name)
        for group in fields(Settings)
        for field in fields(group.default_factory)
    ]
    assert sorted(set(variables)) == sorted(variables)


def test_grpc_is_imported_without_its_fork_handlers() -> None:
    """They crash what a replica's user code forks. A value that the user has set stays."""
    script = """
import os, sys

class Watch:
    def find_spec(self, name, path, target=None):
        if name == "grpc":
            print(os.environ["GRPC_ENABLE_FORK_SUPPORT"])

sys.meta_path.insert(0, Watch())
import mesh
"""
    for given, expected in (({}, "0"), ({"GRPC_ENABLE_FORK_SUPPORT": "1"}, "1")):
        environment = {name: value for name, value in os.environ.items() if name != "GRPC_ENABLE_FORK_SUPPORT"}
        command = [sys.executable, "-c", script]
        printed = subprocess.run(command, env=environment | given, stdout=subprocess.PIPE, text=True, check=True)
        assert printed.stdout.split() == [expected]
