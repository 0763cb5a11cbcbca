"""mesh.options.logging_options: what a `LoggingConfig` accepts (item 235)."""

import logging
from typing import Any

import pytest

from mesh.options.logging_options import LoggingConfig, parse


def test_defaults() -> None:
    config = parse({})
    assert (config.encoding, config.log_level, config.logs_dir, config.enable_access_log) == (
        "TEXT",
        "INFO",
        None,
        True,
    )


@pytest.mark.parametrize("encoding", ["json", "Json", "JSON"])
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
        ({"colour": "red"}, TypeError),
        ("JSON", TypeError),
    ],
)
def test_wrong_fields_are_refused(fields: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        parse(fields)
