"""The picture of the whole mesh at one moment that the status and the controller's metrics are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.controller.desired.desired_state import Desired
from mesh.controller.plan.cluster_picture import Observed
from mesh.controller.report.deployment_status import Verdict
from mesh.controller.scaling.scaling_rule import Load
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerIdentity:
    """The controller's process."""

    pid: int
    node_id: str
    started_unix_s: float
    """Unix time."""
    restarts: int = 0
    """Since the mesh was started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshPicture:
    desired: Desired
    observed: Observed
    verdicts: Mapping[DeploymentKey, Verdict]
    now_s: float
    loads: Mapping[DeploymentKey, Load] = field(default_factory=dict)
    scaling: Mapping[DeploymentKey, control_pb2.AutoscalingStatus] = field(default_factory=dict)
    """Of deployments that autoscale."""
    turn_age_s: float = 0.0
    """Since the last turn of the control loop that ended well."""
    faults: Mapping[DeploymentKey, str] = field(default_factory=dict)
    """The controller's own faults, in words."""
