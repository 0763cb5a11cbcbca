"""Owns the mark of an option that was not given: None is a value for some options."""

from __future__ import annotations

from enum import Enum


class DEFAULT(Enum):
    VALUE = "default"
