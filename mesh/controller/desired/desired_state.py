"""The frozen view of the desired state that the planners read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from mesh.controller.desired.autoscaling_targets import ScalingRules, at_capacity, read_rules
from mesh.controller.desired.changes.canaries import canary_replicas
from mesh.controller.desired.changes.generations import is_proven
from mesh.controller.desired.resource_request import ResourceRequest, resource_request_of
from mesh.options.deployments.drain_policy import DEFAULT_DRAIN, DrainPolicy, drain_policy_of
from mesh.options.deployments.option_effects import config_version
from mesh.options.deployments.rollout_policy import UpdatePace, min_ready_s_of, pace_of
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings
from mesh.v1 import control_pb2

_FAILURES_BEYOND_SURGE = 2
"""An update starts as many replicas at once as the surge allows; two more may fail for reasons of their own."""


class Versioned(Protocol):
    """A replica, as far as its version counts."""

    @property
    def version(self) -> str: ...


R = TypeVar("R", bound=Versioned)


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
    """As it is stored. What autoscaling has decided since then is in `num_replicas` only."""
    predecessor: DeploymentTarget | None = None
    """What was wanted before, with another version or configuration: it is kept until this one is proven."""
    is_canary: bool = False
    """Its replicas are those of a canary, beside which the application goes on."""

    @property
    def pace(self) -> UpdatePace:
        return pace_of(self.spec.options, self.num_replicas)

    @property
    def is_held(self) -> bool:
        """Its rollout is paused: replicas stay as they are, and the version before gets others for those that die."""
        return self.spec.is_paused and self.predecessor is not None

    @property
    def has_run(self) -> bool:
        """A replica of the version came up once."""
        return self.spec.has_run

    @property
    def is_proven(self) -> bool:
        """All replicas served at once."""
        return self.spec.is_proven

    @property
    def was_proven(self) -> bool:
        """They did, now or before a version that it has replaced again."""
        return self.spec.is_proven or self.spec.was_proven

    @property
    def has_other_version_before(self) -> bool:
        return self.predecessor is not None and self.predecessor.version != self.version

    @property
    def versions(self) -> Set[str]:
        """The wanted one, and the one before."""
        return {self.version} | ({self.predecessor.version} if self.predecessor is not None else set())


@dataclass(frozen=True, slots=True)
class Desired:
    deployments: Mapping[DeploymentKey, DeploymentTarget] = field(default_factory=dict)
    retained: Mapping[DeploymentKey, DeploymentTarget] = field(default_factory=dict)
    """Deployments that only the version before of their application has: they go on until the wanted one is proven."""
    applications: Mapping[str, control_pb2.ApplicationSpec] = field(default_factory=dict)
    predecessors: Mapping[str, control_pb2.ApplicationSpec] = field(default_factory=dict)
    """By application: its version before, until the wanted one is proven."""
    canaries: Mapping[DeploymentKey, DeploymentTarget] = field(default_factory=dict)
    """Deployments of which a canary has replicas of its own, with the version and number of these.

    That version is none of those in `deployments` and `retained`, or before them: a replica has one owner.
    """
    canary_applications: Mapping[str, control_pb2.ApplicationSpec] = field(default_factory=dict)
    """By application: its canary."""
    gateways: control_pb2.GatewayOptions = field(default_factory=control_pb2.GatewayOptions)
    gateways_revision: int = 0
    """How often these options have changed since the mesh started."""
    gateways_before: control_pb2.GatewayRevision | None = None
    """The last options that have proven themselves, until all gateways have the wanted ones."""
    is_shutting_down: bool = False
    cordons: Mapping[str, control_pb2.Cordon] = field(default_factory=dict)
    """Nodes that take no new replicas, by id."""
    target_capacity: float | None = None
    """Percent of the replicas asked for that `deployments` already have."""
    descriptor_sets: Mapping[str, bytes] = field(default_factory=dict, compare=False, repr=False)
    """Serialised FileDescriptorSets, by the digests that `applications` refer to."""

    @property
    def gateway_options(self) -> Mapping[int, control_pb2.GatewayOptions]:
        """What gateways may be started with, by revision."""
        before = self.gateways_before
        return {**({before.number: before.options} if before else {}), self.gateways_revision: self.gateways}

    def target(self, key: DeploymentKey) -> DeploymentTarget | None:
        """What is to run of a deployment; None if nothing is."""
        return self.deployments.get(key) or self.retained.get(key) or self.canaries.get(key)

    def target_of(self, key: DeploymentKey, version: str) -> DeploymentTarget | None:
        """The target that has that version: the wanted one, the one before, or a canary."""
        target, canary = self.target(key), self.canaries.get(key)
        generations = (canary, target, target.predecessor if target is not None else None)
        return next((each for each in generations if each is not None and each.version == version), None)

    @property
    def targets(self) -> Mapping[DeploymentKey, DeploymentTarget]:
        """What is to run of each deployment, without the canaries of those that have a version beside them."""
        return {**self.canaries, **self.retained, **self.deployments}

    def beside_canaries(self, key: DeploymentKey, replicas: Sequence[R]) -> Sequence[R]:
        """The replicas of a deployment without those of a canary beside it."""
        if not self.is_divided(key):
            return replicas
        return [each for each in replicas if each.version != self.canaries[key].version]

    def of_canary(self, key: DeploymentKey, replicas: Sequence[R]) -> Sequence[R]:
        """The replicas of a deployment that a canary has which are its own: all, if nothing runs beside them."""
        if not self.is_divided(key):
            return replicas
        return [each for each in replicas if each.version == self.canaries[key].version]

    def is_divided(self, key: DeploymentKey) -> bool:
        """A canary and another version run side by side."""
        return key in self.canaries and (key in self.deployments or key in self.retained)

    @property
    def kept(self) -> Set[DeploymentKey]:
        """All deployments of which something is to run."""
        return self.deployments.keys() | self.retained.keys() | self.canaries.keys()

    def all_targets(self) -> Iterator[DeploymentTarget]:
        """The targets of all generations."""
        for target in (*self.deployments.values(), *self.retained.values(), *self.canaries.values()):
            yield target
            if target.predecessor is not None:
                yield target.predecessor

    def is_succeeded(self, app: str) -> bool:
        """Callers see nothing of a version before: they reach the wanted ingress, and no deployment is retained."""
        before, wanted = self.predecessors.get(app), self.applications[app]
        if before is None or is_proven(wanted):
            return True
        return before.ingress == wanted.ingress and not any(key.app == app for key in self.retained)


def read_desired(state: control_pb2.DesiredState) -> Desired:
    """The planners' view of the stored state. Copies, so that the state may change afterwards."""
    stored = control_pb2.DesiredState()
    stored.CopyFrom(state)
    capacity = stored.target_capacity if stored.HasField("target_capacity") else None
    wanted, before = (
        {target.key: target for app in apps for target in _targets(app, capacity)}
        for apps in (stored.applications, stored.predecessors)
    )
    deployments = {key: _after(before.get(key), target) for key, target in wanted.items()}
    retained = {key: target for key, target in before.items() if key not in wanted}
    return Desired(
        canaries=dict(_canary_targets(stored.canaries, {**retained, **deployments}, capacity)),
        canary_applications={app.name: app for app in stored.canaries},
        deployments=deployments,
        retained=retained,
        applications={app.name: app for app in stored.applications},
        predecessors={app.name: app for app in stored.predecessors},
        gateways=stored.gateways,
        gateways_revision=stored.gateways_revision,
        gateways_before=stored.gateways_before if stored.HasField("gateways_before") else None,
        is_shutting_down=stored.is_shutting_down,
        cordons={each.node_id: each for each in stored.cordons},
        target_capacity=capacity,
    )


def scaled_to(desired: Desired, numbers: Mapping[DeploymentKey, int]) -> Desired:
    """With other numbers of replicas of deployments that autoscale. Everything else is shared: few of many change."""
    deployments, canaries = dict(desired.deployments), dict(desired.canaries)
    for key, number in numbers.items():
        target = deployments[key]
        # The version before, while it still serves, follows the load too.
        before = replace(target.predecessor, num_replicas=number) if target.predecessor is not None else None
        deployments[key] = replace(
            target,
            num_replicas=number,
            constructor_failures_max=_constructor_failures_max(target.spec.options, number),
            update_failures_max=_update_failures_max(target.spec.options, number),
            predecessor=before,
        )
        if key in canaries:
            share = desired.canary_applications[key.app].traffic.percent
            canaries[key] = replace(canaries[key], num_replicas=canary_replicas(number, share))
    return replace(desired, deployments=deployments, canaries=canaries)


def _after(before: DeploymentTarget | None, target: DeploymentTarget) -> DeploymentTarget:
    """`target` with what is kept for it until it is proven."""
    if before is None or target.is_proven:
        return target
    if (before.version, before.config_version) == (target.version, target.config_version):
        return target
    # One that autoscales follows the load; the others keep their number, as long as the new version may start.
    follows = target.scaling or target.spec.is_paused
    number = target.num_replicas if follows else min(before.num_replicas, target.num_replicas)
    return replace(target, predecessor=replace(before, num_replicas=number))


def _canary_targets(
    canaries: Iterable[control_pb2.ApplicationSpec],
    targets: Mapping[DeploymentKey, DeploymentTarget],
    capacity: float | None,
) -> Iterator[tuple[DeploymentKey, DeploymentTarget]]:
    """What canaries have replicas of their own of. Those of a version that is kept beside them serve both."""
    for canary in canaries:
        for target in _targets(canary, capacity):
            beside = targets.get(target.key)
            if beside is not None and target.version in beside.versions:
                continue
            # A new deployment is called by the canary only, but nothing says how often: it does not start on demand.
            number = beside.num_replicas if beside is not None else max(target.num_replicas, int(capacity != 0))
            replicas = canary_replicas(number, canary.traffic.percent)
            yield target.key, replace(target, num_replicas=replicas, scaling=None, is_canary=True)


def _targets(app: control_pb2.ApplicationSpec, target_capacity: float | None) -> Iterable[DeploymentTarget]:
    for spec in app.deployments:
        options = spec.options
        scaling = read_rules(options.autoscaling, target_capacity) if options.HasField("autoscaling") else None
        yield DeploymentTarget(
            key=DeploymentKey(app.name, spec.name),
            version=spec.version,
            # Autoscaling has counted with the capacity when it decided.
            num_replicas=options.num_replicas if scaling else at_capacity(options.num_replicas, target_capacity),
            config_version=config_version(options),
            constructor_failures_max=_constructor_failures_max(options, options.num_replicas),
            update_failures_max=_update_failures_max(options, options.num_replicas),
            min_ready_s=min_ready_s_of(options),
            drain=drain_policy_of(options),
            scaling=scaling,
            request=resource_request_of(options),
            spec=spec,
        )


def _constructor_failures_max(options: control_pb2.DeploymentOptions, num_replicas: int) -> int:
    limits = settings().controller
    failures_max = min(options.max_constructor_retry_count or limits.failures_max, limits.failures_max)
    return min(failures_max, limits.failures_per_replica * max(1, num_replicas))


def _update_failures_max(options: control_pb2.DeploymentOptions, num_replicas: int) -> int:
    return pace_of(options, num_replicas).at_once + _FAILURES_BEYOND_SURGE
