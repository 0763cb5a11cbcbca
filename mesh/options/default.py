"""`DEFAULT.VALUE`: the default of handle options, where None is a value of its own. It means "not given"."""

from __future__ import annotations

from enum import Enum


class DEFAULT(Enum):
    """An enum of one member, so that mypy can narrow its type. Ray Serve has it under the same name."""

    VALUE = "default"
