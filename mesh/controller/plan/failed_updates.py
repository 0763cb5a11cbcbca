"""Updates and canaries that failed and are to be undone, as their deployment has `rollback_on_failure`. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mesh.controller.desired.changes.generations import is_proven
from mesh.controller.desired.desired_state import DeploymentTarget, Desired
from mesh.controller.plan.cluster_picture import Observed, Replica
from mesh.controller.plan.rollout import is_config_rejected, is_given_up
from mesh.routing.snapshot import DeploymentKey


def failed_updates(desired: Desired, observed: Observed) -> Mapping[str, str]:
    """Why, by application. Only those whose version before is kept, and has proven itself, can go back to it.

    When they have gone back, nothing is kept for them any more: an update is undone once.
    """
    targets = [
        target
        for target in desired.deployments.values()
        if target.spec.options.rollback_on_failure and target.key.app in desired.predecessors
    ]
    if not targets:
        return {}
    groups = observed.by_deployment()
    return {
        app: reason
        for target in targets
        for app, reason in _failure(target, desired.beside_canaries(target.key, groups.get(target.key, ())), observed)
        if is_proven(desired.predecessors[app])
    }


def failed_canaries(desired: Desired, observed: Observed) -> Mapping[str, str]:
    """Why, by application. It goes on without its canary."""
    targets = [target for target in desired.canaries.values() if target.spec.options.rollback_on_failure]
    groups = observed.by_deployment() if targets else {}
    return {
        app: f"the canary's {reason}"
        for target in targets
        for app, reason in _failure(target, desired.of_canary(target.key, groups.get(target.key, ())), observed)
    }


def _failure(target: DeploymentTarget, replicas: Sequence[Replica], observed: Observed) -> Iterator[tuple[str, str]]:
    failures = observed.failures_of(target.key, target.version)
    if is_config_rejected(target, observed):
        config_failures = observed.config_failures_of(target.key, target.version, target.config_version)
        yield target.key.app, _text(target.key, "refused its new user_config", config_failures.message)
    elif is_given_up(target, replicas, failures):
        what = "came up and failed" if failures.has_succeeded else "failed to start"
        yield target.key.app, _text(target.key, what, failures.message)


def _text(key: DeploymentKey, what: str, message: str) -> str:
    raised = message.partition("\n")[0]
    return f"deployment {key.name!r} {what}{': ' if raised else ''}{raised}"
