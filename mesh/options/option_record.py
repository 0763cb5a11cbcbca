"""Options that users give as a record or as a dict of its fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from mesh.options import option_checks
from mesh.options.absent_options import check_known

R = TypeVar("R")


def record_of(kind: type[R], name: str, value: R | Mapping[str, Any]) -> R:
    """The record, checked. `kind`: a dataclass; `name`: of the option, for errors.

    Raises TypeError for what is neither and for unknown fields, and what the record raises for wrong values.
    """
    if isinstance(value, kind):
        return value
    given = option_checks.mapping(name, value)
    check_known(name, given, (each.name for each in fields(kind)))  # type: ignore[arg-type]
    return kind(**given)
