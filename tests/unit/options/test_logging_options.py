"""mesh.options.logging_options: what a `LoggingConfig` accepts (item 235)."""

import logging
from typing import Any

import pytest

from mesh.options.logging_options import (
    DEFAULT_LOGGING,
    EncodingType,
    LoggingConfig,
    logging_of_mesh,
    logging_of_replica,
    parse,
)
from mesh.v1 import control_pb2


def test_defaults() -> None:
    config = parse({})
    assert (config.encoding, config.log_level, config.logs_dir, config.enable_access_log) == (
        "TEXT",
        "INFO",
        None,
        True,
    )


@pytest.mark.parametrize("encoding", ["json", "Json", "JSON", EncodingType.JSON])
def test_the_encoding_is_read_in_any_case(encoding: str) -> None:
    assert parse({"encoding": encoding}) == LoggingConfig(encoding="JSON")


@pytest.mark.parametrize("level", ["DEBUG", "warning", logging.ERROR, 5])
def test_levels_are_names_or_numbers(level: str | int) -> None:
    assert parse({"log_level": level}).log_level == level


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"encoding": "XML"}, ValueError),
        ({"log_level": "LOUD"}, ValueError),
        ({"log_level": None}, TypeError),
        ({"enable_access_log": "yes"}, TypeError),
        ({"logs_dir": 3}, TypeError),
        ({"log_level": -1}, ValueError),
        ({"additional_log_standard_attrs": "threadName"}, TypeError),
        ({"additional_log_standard_attrs": ["threadname"]}, ValueError),
        ({"colour": "red"}, TypeError),
        ("JSON", TypeError),
    ],
)
def test_wrong_fields_are_refused(fields: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        parse(fields)


def test_the_message_has_every_field() -> None:
    config = LoggingConfig(
        encoding="json",
        log_level="debug",
        logs_dir="/logs",
        enable_access_log=False,
        additional_log_standard_attrs=["threadName"],
    )
    assert config.to_message() == control_pb2.LoggingOptions(
        is_json=True, level=logging.DEBUG, directory="/logs", additional_attributes=["threadName"]
    )
    assert LoggingConfig().to_message() == control_pb2.LoggingOptions(level=logging.INFO, has_access_log=True)


def test_a_deployment_s_logging_wins_over_that_of_the_mesh() -> None:
    """Without any there is no access log (item 237)."""
    own, mesh = control_pb2.LoggingOptions(level=10), control_pb2.LoggingOptions(level=30)
    spec = control_pb2.ReplicaSpec()
    assert logging_of_replica(spec) == DEFAULT_LOGGING == logging_of_mesh(control_pb2.GatewayOptions())
    assert not DEFAULT_LOGGING.has_access_log
    spec.mesh_logging.CopyFrom(mesh)
    assert logging_of_replica(spec) == mesh == logging_of_mesh(control_pb2.GatewayOptions(logging=mesh))
    spec.spec.options.logging.CopyFrom(own)
    assert logging_of_replica(spec) == own
