"""The options of a canary: which requests of its application it gets. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from mesh.options import option_checks
from mesh.v1 import control_pb2

_RESERVED = ("grpc-", ":")
"""Prefixes of names that user code does not see."""
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")


def traffic_rule(
    traffic_percent: float | None, traffic_match: Mapping[str, str] | None
) -> control_pb2.TrafficRule | None:
    """The rule of a canary; None for an application that is none. Raises TypeError or ValueError naming the option."""
    if traffic_percent is None and not traffic_match:
        return None
    percent = 0.0 if traffic_percent is None else option_checks.number("traffic_percent", traffic_percent)
    if percent > 100:
        raise ValueError(f"traffic_percent must be at most 100, got {percent:g}.")
    if percent == 0 and not traffic_match:
        raise ValueError("traffic_percent must be more than 0, or there must be a traffic_match too.")
    header, value = _match(traffic_match)
    return control_pb2.TrafficRule(percent=percent, header=header, value=value)


def _match(match: Mapping[str, str] | None) -> tuple[str, str]:
    if not match:
        return "", ""
    given = option_checks.mapping("traffic_match", match)
    if len(given) > 1:
        raise ValueError(f"traffic_match names one header field or metadata entry, got {', '.join(map(str, given))}.")
    ((name, value),) = given.items()
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"traffic_match maps a name to text, got {dict(given)!r}. Quote numbers and yes in files.")
    name = name.lower()
    if not name or set(name) - _NAME_CHARACTERS or name.startswith(_RESERVED) or name.endswith("-bin"):
        raise ValueError(f"traffic_match: {name!r} is no name of a header field with text, such as x-canary.")
    return name, value
