"""The pace of a rollout: how many replicas change at a time, how long it waits, which requests a canary gets. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mesh.options import option_checks
from mesh.settings import settings
from mesh.v1 import control_pb2


def min_ready_s_of(options: control_pb2.DeploymentOptions) -> float:
    """In seconds; that of the mesh where the deployment does not say."""
    return options.min_ready_s if options.HasField("min_ready_s") else settings().controller.min_ready_s


def stable_after_s(options: control_pb2.DeploymentOptions) -> float:
    """A replica that ends sooner after its start, or after a new configuration, counts as failed by that."""
    return max(settings().controller.stable_after_s, min_ready_s_of(options))


def progress_deadline_s_of(options: control_pb2.DeploymentOptions) -> float:
    """In seconds; infinite where the deployment does not say."""
    return options.progress_deadline_s if options.HasField("progress_deadline_s") else math.inf


def third_of(count: int) -> int:
    """How many of that many nodes or replicas may be acted on at once if nothing else limits it; at least one."""
    return max(1, count // 3)


@dataclass(frozen=True, slots=True)
class UpdatePace:
    """How many replicas of a deployment may change at a time, and how many may be taken away: its disruption limit.

    Those that are away already, for whatever reason, count against each of these numbers.
    """

    surge_max: int
    """Beyond the target."""
    unavailable_max: int = 0
    """Below the target, by an update."""
    preempted_max: int = 1
    """Below the target, where new replicas find no room unless old ones stop."""
    unhealthy_max: int = 1
    """Below the target, where replicas fail their health checks."""

    @property
    def at_once(self) -> int:
        """Replicas that are in the middle of the change."""
        return max(1, self.surge_max, self.unavailable_max)


def pace_of(options: control_pb2.DeploymentOptions, num_replicas: int) -> UpdatePace:
    """The pace of an update of that many replicas. It can always go on: one of the two numbers is not 0."""
    has_surge, has_limit = options.HasField("max_surge_percent"), options.HasField("max_unavailable_percent")
    share = options.max_surge_percent / 100 if has_surge else settings().controller.surge_share
    surge = math.ceil(num_replicas * share - _ROUNDING)
    preempted = max(1, min(surge, math.floor(num_replicas * share + _ROUNDING)))
    unavailable = math.floor(num_replicas * options.max_unavailable_percent / 100 + _ROUNDING)
    if surge == 0 and unavailable == 0:
        # A share that rounds to no replica: starting one more is what takes nothing away.
        surge = 1
    # Without a limit of its own a full cluster must not stop the rollout.
    # Fewer than one must not be replaced because of their health, or one that hangs would never be.
    unhealthy = max(1, unavailable) if has_limit else third_of(num_replicas)
    return UpdatePace(surge, unavailable, unavailable if has_limit else preempted, unhealthy)


_ROUNDING = 1e-9
"""Percentages are not exact fractions: 7 percent of 100 is a little more than 7."""


def check(max_surge_percent: float | None, max_unavailable_percent: float | None) -> None:
    """Raises TypeError or ValueError for a percentage, or a pair of them, with which no update could go on."""
    if max_surge_percent is not None:
        option_checks.number("max_surge_percent", max_surge_percent)
    if max_unavailable_percent is not None:
        option_checks.number("max_unavailable_percent", max_unavailable_percent)
        if max_unavailable_percent > 100:
            raise ValueError(f"max_unavailable_percent must be at most 100, got {max_unavailable_percent}.")
    if max_surge_percent == 0 and not max_unavailable_percent:
        raise ValueError(
            "With max_surge_percent=0 an update starts no replica before an old one stops: give it a"
            " max_unavailable_percent above 0 too, which says how many may be away meanwhile."
        )


def under_its_name(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options with `rolling_update_percentage`, a fraction, as the `max_unavailable_percent` that it is."""
    options = dict(given)
    if "rolling_update_percentage" in options:
        share = options.pop("rolling_update_percentage")
        if "max_unavailable_percent" in options:
            raise ValueError("rolling_update_percentage is another name of max_unavailable_percent: leave it out.")
        option_checks.number("rolling_update_percentage", share, may_equal=False)
        if share > 1:
            raise ValueError(
                f"rolling_update_percentage must be at most 1, because it is a fraction, got {share}."
                f" In percent: max_unavailable_percent={share:g}."
            )
        options["max_unavailable_percent"] = share * 100
    return options


# ---- Canaries ------------------------------------------------------------------------------------------------------

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
        raise ValueError(f"traffic_match: {name!r} is not a name of a header field with text, such as x-canary.")
    return name, value
