"""`LoggingConfig`: format and place of the logs of a deployment or of the actors of the mesh."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mesh.options import option_checks
from mesh.options.absent_options import check_known
from mesh.options.keyword_advice import with_field_advice

_ENCODINGS = ("TEXT", "JSON")


@with_field_advice
@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingConfig:
    """Format, level and directory of logs. Not available yet: options of this type are checked and refused."""

    encoding: str = "TEXT"
    """TEXT or JSON, in any case."""
    log_level: str | int = "INFO"
    logs_dir: str | None = None
    enable_access_log: bool = True

    def __post_init__(self) -> None:
        encoding = option_checks.text("encoding", self.encoding).upper()
        if encoding not in _ENCODINGS:
            raise ValueError(f"encoding must be TEXT or JSON, got {self.encoding!r}.")
        object.__setattr__(self, "encoding", encoding)
        _check_level(self.log_level)
        if self.logs_dir is not None:
            option_checks.text("logs_dir", self.logs_dir)
        if not isinstance(self.enable_access_log, bool):
            raise TypeError(f"enable_access_log must be True or False, got {self.enable_access_log!r}.")


def parse(config: LoggingConfig | Mapping[str, Any]) -> LoggingConfig:
    """Raises TypeError for unknown fields and wrong types, ValueError for values that do not exist."""
    if isinstance(config, LoggingConfig):
        return config
    given = option_checks.mapping("logging_config", config)
    check_known("logging_config", given, (each.name for each in fields(LoggingConfig)))
    return LoggingConfig(**given)  # type: ignore[arg-type]


def _check_level(level: object) -> None:
    if isinstance(level, bool) or not isinstance(level, (str, int)):
        raise TypeError(f"log_level must be a level's name or number, got {level!r}.")
    if isinstance(level, str) and level.upper() not in logging.getLevelNamesMapping():
        raise ValueError(f"log_level {level!r} is unknown. Use DEBUG, INFO, WARNING, ERROR, CRITICAL or a number.")
