"""Owns what a change of each option does to replicas that are running (items 186–188). Pure.

An option that nobody has put into one of the two sets below replaces replicas: that is always right, only dear.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

from mesh.v1 import control_pb2


class Effect(StrEnum):
    REPLACE = "replicas are replaced"
    IN_PLACE = "replicas take it over while they serve"
    NONE = "nothing restarts"


_IN_PLACE = {
    "max_ongoing_requests",
    "user_config_json",
    "graceful_shutdown_wait_loop_s",
    "graceful_shutdown_timeout_s",
}
_CONTROLLERS_OWN = {
    "num_replicas",
    "max_queued_requests",
    "health_check_period_s",
    "health_check_timeout_s",
    "max_constructor_retry_count",
    "autoscaling",
}

EFFECTS = {
    field.name: Effect.IN_PLACE
    if field.name in _IN_PLACE
    else Effect.NONE
    if field.name in _CONTROLLERS_OWN
    else Effect.REPLACE
    for field in control_pb2.DeploymentOptions.DESCRIPTOR.fields
}
"""By field of DeploymentOptions."""


def replica_version(spec: control_pb2.DeploymentSpec) -> str:
    """Changes whenever running replicas have to be replaced: with the code, or with an option of that effect."""
    return f"{spec.version}-{_digest(spec.options, Effect.REPLACE)[:8]}"


def config_version(options: control_pb2.DeploymentOptions) -> str:
    """Digest of the options that a running replica takes over in place."""
    return _digest(options, Effect.IN_PLACE)[:16]


def _digest(options: control_pb2.DeploymentOptions, effect: Effect) -> str:
    chosen = control_pb2.DeploymentOptions()
    chosen.CopyFrom(options)
    for name, other in EFFECTS.items():
        if other is not effect:
            chosen.ClearField(name)
    if effect is Effect.IN_PLACE and options.autoscaling.metrics_interval_s:
        # How often replicas report is theirs to know; the rest of autoscaling is the controller's own.
        chosen.autoscaling.metrics_interval_s = options.autoscaling.metrics_interval_s
    return hashlib.sha256(chosen.SerializeToString(deterministic=True)).hexdigest()
