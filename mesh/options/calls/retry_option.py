"""The option `retry`: how often, and after which status codes, a unary call is sent again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import grpc

from mesh.options import option_checks

_KEYS = ("attempts", "codes", "budget")
_ATTEMPTS_MAX = 16
_FINAL_CODES = {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED}
_RETRYABLE_NAMES = [code.name for code in grpc.StatusCode if code not in _FINAL_CODES]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a unary call that failed is sent again."""

    attempts: int
    """Sends of one call, the first included."""
    codes: frozenset[int]
    """Status codes after which it is."""
    budget: float
    """Retries per call of the router."""


def retry_policy(value: object, name: str = "retry") -> RetryPolicy | None:
    """The option's checked value. Raises TypeError or ValueError naming what is wrong; `name` is the option's."""
    if value is None or isinstance(value, RetryPolicy):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(
            f'{name} must be a dict such as {{"attempts": 3, "codes": ["UNAVAILABLE"]}}, or None, got {value!r}.'
        )
    for key in value:
        if key not in _KEYS:
            known = ", ".join(_KEYS)
            raise ValueError(f"{name} has no {key!r}.{option_checks.did_you_mean(str(key), _KEYS)} It takes {known}.")
    attempts = option_checks.whole_number(f"{name}['attempts']", value.get("attempts", 3), 2, _ATTEMPTS_MAX)
    budget = option_checks.number(f"{name}['budget']", value.get("budget", 0.1), may_equal=False)
    if budget > 1:
        raise ValueError(f"{name}['budget'] must be at most 1, one retry per call, got {budget:g}.")
    return RetryPolicy(attempts, _codes(f"{name}['codes']", value.get("codes", ("UNAVAILABLE",))), budget)


def _codes(name: str, value: object) -> frozenset[int]:
    if isinstance(value, str) or not isinstance(value, Collection) or not value:
        raise TypeError(f"{name} must be a list of gRPC status codes or their names, got {value!r}.")
    return frozenset(_code(name, each) for each in value)


def _code(name: str, value: object) -> int:
    code = value.name if isinstance(value, grpc.StatusCode) else value
    if code not in _RETRYABLE_NAMES:
        advice = option_checks.did_you_mean(str(code).upper(), _RETRYABLE_NAMES)
        raise ValueError(f"{name} cannot have {value!r}.{advice} It takes {', '.join(_RETRYABLE_NAMES)}.")
    number: int = grpc.StatusCode[str(code)].value[0]
    return number
