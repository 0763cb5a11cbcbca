"""The frozen view of the desired state that the planners read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mesh.controller.desired.autoscaling_targets import ScalingRules, at_capacity, read_rules
from mesh.controller.desired.resource_request import ResourceRequest, resource_request_of
from mesh.options.drain_policy import DEFAULT_DRAIN, DrainPolicy, drain_policy_of
from mesh.options.option_effects import config_version
from mesh.options.rollout_policy import min_ready_s_of
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings
from mesh.v1 import control_pb2

_FAILURES_BEYOND_SURGE = 2
"""An update starts as many replicas at once as the surge allows; two more may fail for reasons of their own."""


@dataclass(frozen=True, slots=True)
class DeploymentTarget:
    """What is wanted of one deployment."""

    key: DeploymentKey
    version: str
    """Replicas of another version have to be replaced."""
    num_replicas: int
    config_version: str = ""
    """Replicas with another one have to be reconfigured in place."""
    constructor_failures_max: int = 20
    """A version none of whose replicas came up is given up after this many failed constructors."""
    update_failures_max: int = 20
    """A version is given up after this many failures while replicas of another one serve."""
    min_ready_s: float = 0.0
    """A new replica has to serve for this long before an old one stops for it."""
    drain: DrainPolicy = DEFAULT_DRAIN
    scaling: ScalingRules | None = None
    """How `num_replicas` follows the load; None: it is fixed."""
    request: ResourceRequest = field(default_factory=ResourceRequest)
    spec: control_pb2.DeploymentSpec = field(default_factory=control_pb2.DeploymentSpec, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Desired:
    deployments: Mapping[DeploymentKey, DeploymentTarget] = field(default_factory=dict)
    applications: Mapping[str, control_pb2.ApplicationSpec] = field(default_factory=dict)
    gateways: control_pb2.GatewayOptions = field(default_factory=control_pb2.GatewayOptions)
    is_shutting_down: bool = False
    target_capacity: float | None = None
    """Percent of the replicas asked for that `deployments` already have."""
    descriptor_sets: Mapping[str, bytes] = field(default_factory=dict, compare=False, repr=False)
    """Serialised FileDescriptorSets, by the digests that `applications` refer to."""


def read_desired(state: control_pb2.DesiredState) -> Desired:
    """The planners' view of the stored state. Copies, so that the state may change afterwards."""
    stored = control_pb2.DesiredState()
    stored.CopyFrom(state)
    capacity = stored.target_capacity if stored.HasField("target_capacity") else None
    return Desired(
        deployments={target.key: target for app in stored.applications for target in _targets(app, capacity)},
        applications={app.name: app for app in stored.applications},
        gateways=stored.gateways,
        is_shutting_down=stored.is_shutting_down,
        target_capacity=capacity,
    )


def surge_max(num_replicas: int, share: float) -> int:
    """Replicas that may run beyond the target while a version replaces another: at least one."""
    return max(1, math.ceil(num_replicas * share))


def _targets(app: control_pb2.ApplicationSpec, target_capacity: float | None) -> Iterable[DeploymentTarget]:
    limits = settings().controller
    for spec in app.deployments:
        options = spec.options
        scaling = read_rules(options.autoscaling, target_capacity) if options.HasField("autoscaling") else None
        failures_max = min(options.max_constructor_retry_count or limits.failures_max, limits.failures_max)
        yield DeploymentTarget(
            key=DeploymentKey(app.name, spec.name),
            version=spec.version,
            # Autoscaling has counted with the capacity when it decided.
            num_replicas=options.num_replicas if scaling else at_capacity(options.num_replicas, target_capacity),
            config_version=config_version(options),
            constructor_failures_max=min(failures_max, limits.failures_per_replica * max(1, options.num_replicas)),
            update_failures_max=surge_max(options.num_replicas, limits.surge_share) + _FAILURES_BEYOND_SURGE,
            min_ready_s=min_ready_s_of(options),
            drain=drain_policy_of(options),
            scaling=scaling,
            request=resource_request_of(options),
            spec=spec,
        )
