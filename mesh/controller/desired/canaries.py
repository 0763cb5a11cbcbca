"""Canaries: versions that run beside an application and get a share of its requests, until they are promoted. Pure.

A canary is stored apart from the application and changes nothing about it: that may be deployed again and scaled
meanwhile. Of each deployment whose version the two do not share the canary has replicas of its own, as many as its
share of the application's number; all others serve both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import grpc

from mesh.controller.desired.invalid_change import InvalidChangeError
from mesh.options.option_effects import config_version
from mesh.v1 import control_pb2

_OTHER_CONFIG = "+config"
"""Ends the version of a deployment of a canary that differs in what replicas adopt in place only: replicas of the two
need different versions."""


def canary_of(state: control_pb2.DesiredState, name: str) -> control_pb2.ApplicationSpec | None:
    return next((app for app in state.canaries if app.name == name), None)


def prepared(state: control_pb2.DesiredState, canary: control_pb2.ApplicationSpec) -> control_pb2.ApplicationSpec:
    """The canary as it is stored. Raises InvalidChangeError where it does not fit to the application beside it."""
    beside = next((app for app in state.applications if app.name == canary.name), None)
    if beside is None:
        raise InvalidChangeError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"Application {canary.name!r} does not run, so it has no requests for a canary. Deploy it without traffic"
            " options first.",
        )
    if beside.ingress != canary.ingress:
        raise InvalidChangeError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"The ingress of {canary.name!r} is {beside.ingress!r}, and that of its canary would be {canary.ingress!r}:"
            " both need the same one, as clients call both. Deploy it without traffic options.",
        )
    made = control_pb2.ApplicationSpec()
    made.CopyFrom(canary)
    made.route_prefix = beside.route_prefix
    others = {spec.name: spec for spec in beside.deployments}
    for spec in made.deployments:
        other = others.get(spec.name)
        if other is not None and other.version == spec.version and not _is_same(other, spec):
            spec.version += _OTHER_CONFIG
    _check_predecessors(state, made)
    return made


def promoted(canary: control_pb2.ApplicationSpec) -> control_pb2.ApplicationSpec:
    """The canary as it is deployed in the place of the application beside it."""
    made = control_pb2.ApplicationSpec()
    made.CopyFrom(canary)
    made.ClearField("traffic")
    return made


def keep_versions(before: Iterable[control_pb2.DeploymentSpec], after: Iterable[control_pb2.DeploymentSpec]) -> None:
    """A deployment that is what a canary brought keeps the version that it had as one: nothing restarts."""
    known = {spec.name: spec for spec in before}
    for spec in after:
        old = known.get(spec.name)
        if old is not None and old.version == spec.version + _OTHER_CONFIG and _has_same_config(old, spec):
            spec.version = old.version


def keep_canaries(
    before: Iterable[control_pb2.ApplicationSpec], changed: control_pb2.DesiredState
) -> Iterator[control_pb2.ApplicationSpec]:
    """Those that still have an application beside them from which they differ."""
    applications = {app.name: app for app in changed.applications}
    for canary in before:
        beside = applications.get(canary.name)
        if beside is not None and own_deployments(beside, canary):
            yield canary


def own_deployments(
    beside: control_pb2.ApplicationSpec, canary: control_pb2.ApplicationSpec
) -> dict[str, control_pb2.DeploymentSpec]:
    """Those of which the canary has replicas of its own, by name."""
    versions = {spec.name: spec.version for spec in beside.deployments}
    return {spec.name: spec for spec in canary.deployments if versions.get(spec.name) != spec.version}


def canary_replicas(beside: int, percent: float) -> int:
    """The share of the replicas that the application has, at least one; none while it has none."""
    return max(1, math.ceil(beside * percent / 100 - 1e-9)) if beside else 0


def traffic_text(rule: control_pb2.TrafficRule) -> str:
    match = f"{rule.header}: {rule.value or 'any'}" if rule.header else ""
    share = f"{rule.percent:g} % of requests" if rule.percent or not match else ""
    return " and ".join(filter(None, (share, match)))


def _check_predecessors(state: control_pb2.DesiredState, canary: control_pb2.ApplicationSpec) -> None:
    """Replicas of one version are either those of the canary or kept ones of the version before."""
    before: Mapping[str, str] = {
        spec.name: spec.version for app in state.predecessors if app.name == canary.name for spec in app.deployments
    }
    for spec in own_deployments(next(app for app in state.applications if app.name == canary.name), canary).values():
        if before.get(spec.name) == spec.version:
            raise InvalidChangeError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"Deployment {spec.name!r} still runs this version, because the rollout of another one is not complete."
                f" Wait for it (`mesh status --name {canary.name} --wait`), or go back with"
                f" `mesh rollback {canary.name}`.",
            )


def _is_same(one: control_pb2.DeploymentSpec, other: control_pb2.DeploymentSpec) -> bool:
    return one.version == other.version and _has_same_config(one, other)


def _has_same_config(one: control_pb2.DeploymentSpec, other: control_pb2.DeploymentSpec) -> bool:
    return config_version(one.options) == config_version(other.options)
