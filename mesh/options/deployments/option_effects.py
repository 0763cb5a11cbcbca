"""The effect that a change of each option has on running replicas (items 186–188). Pure.

An option in neither of the two sets below replaces replicas: safe, but expensive.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

from mesh.v1 import control_pb2


class Effect(StrEnum):
    REPLACE = "replicas are replaced"
    IN_PLACE = "replicas adopt it while they serve"
    NONE = "nothing restarts"


_IN_PLACE = {
    "max_ongoing_requests",
    "user_config_json",
    "graceful_shutdown_wait_loop_s",
    "graceful_shutdown_timeout_s",
    "logging",
}
_CONTROLLER_ONLY = {
    "num_replicas",
    "max_queued_requests",
    "queue_timeout_s",
    "backpressure",
    "request_router",
    "health_check_period_s",
    "health_check_timeout_s",
    "max_constructor_retry_count",
    "min_ready_s",
    "progress_deadline_s",
    "max_surge_percent",
    "max_unavailable_percent",
    "rollback_on_failure",
    "autoscaling",
}

EFFECTS = {
    field.name: Effect.IN_PLACE
    if field.name in _IN_PLACE
    else Effect.NONE
    if field.name in _CONTROLLER_ONLY
    else Effect.REPLACE
    for field in control_pb2.DeploymentOptions.DESCRIPTOR.fields
}
"""By field of DeploymentOptions."""


def replica_version(spec: control_pb2.DeploymentSpec) -> str:
    """Differs if running replicas must be replaced: for other code, or another option with that effect."""
    return f"{spec.version}-{_digest(spec.options, Effect.REPLACE)[:8]}"


def config_version(options: control_pb2.DeploymentOptions) -> str:
    """Digest of the options that a running replica adopts in place."""
    return _digest(options, Effect.IN_PLACE)[:16]


def _digest(options: control_pb2.DeploymentOptions, effect: Effect) -> str:
    chosen = control_pb2.DeploymentOptions()
    chosen.CopyFrom(options)
    for name, other in EFFECTS.items():
        if other is not effect:
            chosen.ClearField(name)
    if effect is Effect.IN_PLACE:
        _add_intervals(chosen, options)
    return hashlib.sha256(chosen.SerializeToString(deterministic=True)).hexdigest()


def _add_intervals(chosen: control_pb2.DeploymentOptions, options: control_pb2.DeploymentOptions) -> None:
    """How often replicas report; only the controller and callers use the rest of these options."""
    if options.autoscaling.metrics_interval_s:
        chosen.autoscaling.metrics_interval_s = options.autoscaling.metrics_interval_s
    if options.request_router.stats_period_s:
        chosen.request_router.stats_period_s = options.request_router.stats_period_s
        chosen.request_router.stats_timeout_s = options.request_router.stats_timeout_s
