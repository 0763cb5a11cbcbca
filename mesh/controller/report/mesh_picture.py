"""The picture of the whole mesh at one moment that the status and the controller's metrics are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property

from mesh.controller.desired.desired_state import Desired
from mesh.controller.plan.cluster_picture import GatewaySlot, Observed, Replica
from mesh.controller.plan.gateway_plan import wanted_slots
from mesh.controller.report.deployment_status import Verdict
from mesh.controller.scaling.scaling_rule import Load
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2

_SHARE = 0.04
"""Share of the controller's time that pictures for clients may take."""
_CHEAP_S = 0.005
"""A picture that takes no longer is made for each client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerIdentity:
    """The controller's process."""

    pid: int
    node_id: str
    started_unix_s: float
    """Unix time."""
    restarts: int = 0
    """Since the mesh was started."""
    mesh_id: bytes = b""
    """Id of the controller's mesh, see `mesh/wire/mesh_token.py`."""


@dataclass(frozen=True, kw_only=True)
class MeshPicture:
    desired: Desired
    observed: Observed
    verdicts: Mapping[DeploymentKey, Verdict]
    now_s: float
    loads: Mapping[DeploymentKey, Load] = field(default_factory=dict)
    scaling: Mapping[DeploymentKey, control_pb2.AutoscalingStatus] = field(default_factory=dict)
    """The autoscaling of deployments that autoscale."""
    turn_age_s: float = 0.0
    """Since the last turn of the control loop that ended well."""
    faults: Mapping[DeploymentKey, str] = field(default_factory=dict)
    """The controller's own faults, in words."""

    @cached_property
    def replicas(self) -> Mapping[DeploymentKey, Sequence[Replica]]:
        """By deployment; none of one without any."""
        return self.observed.by_deployment()

    @cached_property
    def deployments(self) -> Mapping[str, Sequence[DeploymentKey]]:
        """By application, sorted."""
        by_app: dict[str, list[DeploymentKey]] = {}
        for key in sorted(self.verdicts):
            by_app.setdefault(key.app, []).append(key)
        return by_app

    @cached_property
    def wanted_gateways(self) -> Set[GatewaySlot]:
        """With the options that they are to have in the end."""
        return wanted_slots(self.desired, self.observed, self.now_s)


class SharedPicture:
    """One picture for all clients that ask at about the same time. That of a large mesh takes long to make."""

    def __init__(
        self,
        make: Callable[[], MeshPicture],
        clock: Callable[[], float],
        stopwatch: Callable[[], float],
    ) -> None:
        self._make = make
        self._clock = clock
        self._stopwatch = stopwatch
        self._picture: MeshPicture | None = None
        self._ends_at_s = 0.0

    def get(self) -> MeshPicture:
        """The present one; of a large mesh one of a moment ago, so that they take a small share of the time."""
        if self._picture is None or self._clock() >= self._ends_at_s:
            began_at_s = self._stopwatch()
            self._picture = self._make()
            took_s = self._stopwatch() - began_at_s
            self._ends_at_s = self._clock() + (took_s / _SHARE if took_s > _CHEAP_S else 0.0)
        return self._picture

    def forget(self) -> None:
        """Show what was just changed."""
        self._picture = None
