"""How often the health of a replica is checked and how long a check may take: as its deployment says, or by default.

Messages of callers and controllers that do not know these options carry zeros: they mean the defaults.
"""

from __future__ import annotations

from mesh.v1 import control_pb2

DEFAULT_PERIOD_S = 10.0
"""Time between two checks."""
DEFAULT_TIMEOUT_S = 30.0
"""Longest time of one check."""


def check_period_s_of(options: control_pb2.DeploymentOptions) -> float:
    return options.health_check_period_s or DEFAULT_PERIOD_S


def check_timeout_s_of(options: control_pb2.DeploymentOptions) -> float:
    """For `check_health`, and for `check_ready` too."""
    return options.health_check_timeout_s or DEFAULT_TIMEOUT_S
