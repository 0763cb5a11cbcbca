"""`LoggingConfig`: format, level and place of the logs of a deployment or of the whole mesh."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mesh.options import option_checks
from mesh.options.keyword_advice import with_field_advice
from mesh.options.option_record import record_of
from mesh.v1 import control_pb2

_LEVEL_MAX = 1000
_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({})))


class EncodingType(StrEnum):
    """The forms of log records. The string "text" or "json", in any case, is accepted too."""

    TEXT = "TEXT"
    JSON = "JSON"


@with_field_advice
@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingConfig:
    """Format, level and directory of logs, and whether each call is logged.

    Without any, logs are text at INFO without an access log.
    """

    encoding: str = "TEXT"
    """TEXT or JSON, in any case."""
    log_level: str | int = "INFO"
    """Records below this level are dropped."""
    logs_dir: str | None = None
    """Directory of the log files on each node; None: `logs/mesh` of Ray's session."""
    enable_access_log: bool = True
    """One record per call: method, status and duration."""
    additional_log_standard_attrs: Sequence[str] = ()
    """Attributes of Python's `LogRecord` that JSON records have too, for instance "threadName"."""

    def __post_init__(self) -> None:
        encoding = option_checks.text("encoding", self.encoding).upper()
        if encoding not in tuple(EncodingType):
            raise ValueError(f"encoding must be TEXT or JSON, got {self.encoding!r}.")
        object.__setattr__(self, "encoding", encoding)
        _check_level(self.log_level)
        if self.logs_dir is not None:
            option_checks.text("logs_dir", self.logs_dir)
        option_checks.flag("enable_access_log", self.enable_access_log)
        _check_attributes(self.additional_log_standard_attrs)

    def to_message(self) -> control_pb2.LoggingOptions:
        """The options as the controller stores them."""
        level = self.log_level
        return control_pb2.LoggingOptions(
            is_json=self.encoding == "JSON",
            level=level if isinstance(level, int) else logging.getLevelNamesMapping()[level.upper()],
            directory=self.logs_dir or "",
            has_access_log=self.enable_access_log,
            additional_attributes=self.additional_log_standard_attrs,
        )


DEFAULT_LOGGING = control_pb2.LoggingOptions(level=logging.INFO)
"""Where no option is given."""


def parse(config: LoggingConfig | Mapping[str, Any]) -> LoggingConfig:
    """Raises TypeError for unknown fields and wrong types, ValueError for values that do not exist."""
    return record_of(LoggingConfig, "logging_config", config)


def logging_of_replica(spec: control_pb2.ReplicaSpec) -> control_pb2.LoggingOptions:
    """Those of its deployment, else of the mesh, else the defaults."""
    if spec.spec.options.HasField("logging"):
        return spec.spec.options.logging
    return spec.mesh_logging if spec.HasField("mesh_logging") else DEFAULT_LOGGING


def logging_of_mesh(options: control_pb2.GatewayOptions) -> control_pb2.LoggingOptions:
    """Those of the gateways and the controller."""
    return options.logging if options.HasField("logging") else DEFAULT_LOGGING


def _check_level(level: object) -> None:
    if isinstance(level, bool) or not isinstance(level, (str, int)):
        raise TypeError(f"log_level must be a level's name or number, got {level!r}.")
    if isinstance(level, str) and level.upper() not in logging.getLevelNamesMapping():
        raise ValueError(f"log_level {level!r} is unknown. Use DEBUG, INFO, WARNING, ERROR, CRITICAL or a number.")
    if isinstance(level, int):
        option_checks.whole_number("log_level", level, 0, _LEVEL_MAX)


def _check_attributes(names: object) -> None:
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"additional_log_standard_attrs must be a list of names, got {names!r}.")
    for name in names:
        if name not in _ATTRIBUTES:
            advice = option_checks.did_you_mean(str(name), _ATTRIBUTES)
            raise ValueError(f"additional_log_standard_attrs: LogRecord has no attribute {name!r}.{advice}")
