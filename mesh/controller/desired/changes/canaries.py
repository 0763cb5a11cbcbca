"""Canaries: versions that run beside an application and get a share of its requests, until they are promoted. Pure.

A canary is stored apart from the application and changes nothing about it: that may be deployed again and scaled
meanwhile. Of each deployment whose version the two do not share the canary has replicas of its own, as many as its
share of the application's number; all others serve both. What they share stays shared when the application is deployed
again: the canary has the new version too then, and the old one stays that of the version before alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import grpc

from mesh.controller.desired.changes.application_checks import (
    check_deployments,
    check_descriptors,
    check_not_shutting_down,
)
from mesh.controller.desired.changes.invalid_change import InvalidChangeError
from mesh.controller.desired.changes.replicas_at_deploy import replicas_at_deploy
from mesh.controller.desired.changes.state_edits import application_of, keep_only, next_version
from mesh.options.deployments.option_effects import config_version
from mesh.v1 import control_pb2

_OTHER_CONFIG = "+config"
"""Ends the version of a deployment of a canary that differs in what replicas adopt in place only: replicas of the two
need different versions."""
REASON_MAX_CHARS = 1000
"""Length of the text that says why something was undone."""


def canary_of(state: control_pb2.DesiredState, name: str) -> control_pb2.ApplicationSpec | None:
    """The canary of that application."""
    return next((app for app in state.canaries if app.name == name), None)


def set_canaries(
    changed: control_pb2.DesiredState, added: Sequence[control_pb2.ApplicationSpec], before: control_pb2.DesiredState
) -> None:
    """Add canaries, in the place of those of their names, and let the others follow their applications.

    Those without an application, or without a difference from it, end. `before`: the state that was changed.
    """
    for canary in added:
        check_not_shutting_down(changed)
        check_deployments(canary)
        check_descriptors(canary)
    names = {app.name for app in added}
    kept = [_following(app, before, changed) for app in changed.canaries if app.name not in names]
    canaries = [*kept, *(_prepared(changed, app) for app in added)]
    applications = {app.name: app for app in changed.applications}
    keep_only(changed.canaries, (each for each in canaries if _is_needed(applications.get(each.name), each)))


def without_canary(state: control_pb2.DesiredState, name: str) -> control_pb2.DesiredState:
    """The state without it."""
    changed = next_version(state)
    keep_only(changed.canaries, (app for app in state.canaries if app.name != name))
    return changed


def without_failed(state: control_pb2.DesiredState, reasons: Mapping[str, str]) -> control_pb2.DesiredState:
    """The state without the canaries that failed. `reasons`: by application."""
    changed = next_version(state)
    keep_only(changed.canaries, (app for app in state.canaries if app.name not in reasons))
    for app in changed.applications:
        if app.name in reasons:
            app.rolled_back_because = reasons[app.name][:REASON_MAX_CHARS]
    return changed


def promoted(canary: control_pb2.ApplicationSpec, route_prefix: str) -> control_pb2.ApplicationSpec:
    """The canary as it is deployed in the place of the application beside it, with the routes that this has now."""
    made = control_pb2.ApplicationSpec()
    made.CopyFrom(canary)
    made.ClearField("traffic")
    made.route_prefix = route_prefix
    for spec in made.deployments:
        # What has run may be tried again; more replicas than the canary had have to prove themselves.
        spec.is_proven = False
    return made


def keep_versions(before: Iterable[control_pb2.DeploymentSpec], after: Iterable[control_pb2.DeploymentSpec]) -> None:
    """A deployment that is what a canary brought keeps the version that it had as one: nothing restarts."""
    known = {spec.name: spec for spec in before}
    for spec in after:
        old = known.get(spec.name)
        if old is not None and _is_same_as_canary(spec, old):
            spec.version = old.version


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
    """Which requests a canary gets: "10 % of requests and x-canary: 1"."""
    match = f"{rule.header}: {rule.value or 'any'}" if rule.header else ""
    share = f"{rule.percent:g} % of requests" if rule.percent or not match else ""
    return " and ".join(filter(None, (share, match)))


def _prepared(state: control_pb2.DesiredState, canary: control_pb2.ApplicationSpec) -> control_pb2.ApplicationSpec:
    """The canary as it is stored. Raises InvalidChangeError if it does not fit the application beside it."""
    beside = application_of(state, canary.name)
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
    keep_versions(beside.deployments, made.deployments)
    others = {spec.name: spec for spec in beside.deployments}
    for spec in made.deployments:
        other = others.get(spec.name)
        if other is not None and other.version == spec.version and not _has_same_config(other, spec):
            spec.version += _OTHER_CONFIG
        spec.options.num_replicas = replicas_at_deploy(other.options if other else None, spec.options)
    _check_predecessors(state, made)
    return made


def _following(
    canary: control_pb2.ApplicationSpec, before: control_pb2.DesiredState, after: control_pb2.DesiredState
) -> control_pb2.ApplicationSpec:
    """The canary with what it shares with the application beside it as that has it after a change.

    One that only its application drops stays as it was.
    """
    made = control_pb2.ApplicationSpec()
    made.CopyFrom(canary)
    generations = (*before.applications, *before.predecessors)
    shared = {(spec.name, spec.version) for app in generations if app.name == canary.name for spec in app.deployments}
    wanted = {spec.name: spec for app in after.applications if app.name == canary.name for spec in app.deployments}
    for spec in made.deployments:
        now = wanted.get(spec.name)
        if now is None or (now.version == spec.version and _has_same_config(now, spec)):
            continue
        if (spec.name, spec.version) in shared or _is_same_as_canary(now, spec):
            spec.CopyFrom(now)
            # Proofs and pauses are matters of the application.
            spec.has_run = spec.is_proven = spec.was_proven = spec.is_paused = False
    return made


def _is_needed(beside: control_pb2.ApplicationSpec | None, canary: control_pb2.ApplicationSpec) -> bool:
    """Clients call both through one ingress, and both differ."""
    return beside is not None and beside.ingress == canary.ingress and bool(own_deployments(beside, canary))


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
                f" Wait for it (`mesh status {canary.name} --wait`), or go back with"
                f" `mesh rollback {canary.name}`.",
            )


def _is_same_as_canary(spec: control_pb2.DeploymentSpec, canary: control_pb2.DeploymentSpec) -> bool:
    """They differ in the mark of a canary's version only."""
    return canary.version == spec.version + _OTHER_CONFIG and _has_same_config(canary, spec)


def _has_same_config(one: control_pb2.DeploymentSpec, other: control_pb2.DeploymentSpec) -> bool:
    return config_version(one.options) == config_version(other.options)
