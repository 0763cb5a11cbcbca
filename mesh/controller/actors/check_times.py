"""When health checks of a replica are due, and how long each may take."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from mesh.options.deployments.health_checks import check_period_s_of, check_timeout_s_of
from mesh.settings import settings
from mesh.v1 import control_pb2

_UNREADY_PERIOD_S = 1.0
"""Pause between two checks of a replica that takes no calls."""
_PERIOD_MIN_S = 0.05
"""Least pause between two checks, whatever the deployment says."""
_LOOK_S = 15.0
"""How often a period that is longer is read again."""


class CheckTimes(NamedTuple):
    period_s: float
    timeout_s: float


def check_times_of(options: control_pb2.DeploymentOptions, *, is_ready: bool) -> CheckTimes:
    """`is_ready`: the replica takes calls; one that does not is asked more often."""
    period_s = max(check_period_s_of(options), _PERIOD_MIN_S)
    return CheckTimes(period_s if is_ready else min(period_s, _UNREADY_PERIOD_S), check_timeout_s_of(options))


async def wait_for_check(
    period_s: Callable[[], float | None], pause: Callable[[float], Awaitable[object]] = asyncio.sleep
) -> None:
    """Wait until the next check is due. The period may change meanwhile; None: there is nothing to check any more.

    `pause` waits for that many seconds; where it returns something true, the check is due at once.
    """
    jitter = settings().controller.health_jitter_share
    share = random.uniform(1 - jitter, 1 + jitter)
    passed_s = 0.0
    while (wanted_s := period_s()) is not None and passed_s < wanted_s * share:
        pause_s = min(wanted_s * share - passed_s, _LOOK_S)
        if await pause(pause_s):
            return
        passed_s += pause_s
