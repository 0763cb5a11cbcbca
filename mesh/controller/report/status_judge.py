"""The verdicts about all deployments, kept up to date, and the faults of the controller itself."""

from __future__ import annotations

import logging

from mesh.controller.desired.controller_faults import ControllerFaults, Problems, confined
from mesh.controller.desired.desired_state import Desired
from mesh.controller.plan.cluster_picture import Observed
from mesh.controller.plan.cluster_resources import ClusterResources
from mesh.controller.report.deployment_status import (
    Verdict,
    canary_verdict,
    deleted_verdict,
    first_verdict,
    next_verdict,
    retained_verdict,
)
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings
from mesh.status import DeploymentStatus, DeploymentStatusTrigger

logger = logging.getLogger("mesh")


class StatusJudge:
    """Logs each change of a deployment's status once."""

    def __init__(self) -> None:
        self.verdicts: dict[DeploymentKey, Verdict] = {}
        self.faults = ControllerFaults()

    def update(self, desired: Desired, observed: Observed, now_s: float) -> None:
        """Judge every deployment that is wanted or still has replicas. After a fault its verdict stays as it was."""
        groups = observed.by_deployment()
        resources = ClusterResources(observed, now_s, settings().controller)
        problems: Problems = {}
        verdicts = {
            key: self.verdicts.get(key) or first_verdict(target, now_s) for key, target in desired.deployments.items()
        }
        for key, target in desired.deployments.items():
            replicas = desired.beside_canaries(key, groups.pop(key, ()))
            failures = observed.failures_of(key, target.version)
            with confined(key, problems):
                verdicts[key] = next_verdict(self.verdicts.get(key), target, replicas, failures, resources)
        for key, replicas in groups.items():
            if retained := desired.retained.get(key):
                verdicts[key] = retained_verdict(retained, desired.beside_canaries(key, replicas), now_s)
            elif canary := desired.canaries.get(key):
                verdicts[key] = canary_verdict(canary, replicas, now_s)
            else:
                verdicts[key] = deleted_verdict(replicas)
        for key, verdict in verdicts.items():
            _log_change(key, self.verdicts.get(key), verdict)
        self.verdicts = verdicts
        self.faults.note("judgement", problems)

    def restart(self, key: DeploymentKey) -> None:
        """Forget that a deployment failed, because it was deployed again."""
        verdict = self.verdicts.get(key)
        if verdict is not None and verdict.status == DeploymentStatus.DEPLOY_FAILED:
            # Pictures that are shown for a while have the verdicts as they were.
            self.verdicts = {each: other for each, other in self.verdicts.items() if each != key}

    @property
    def all_healthy(self) -> bool:
        return all(verdict.status == DeploymentStatus.HEALTHY for verdict in self.verdicts.values())


def _log_change(key: DeploymentKey, before: Verdict | None, verdict: Verdict) -> None:
    if before is verdict or (before is not None and _decided(before) == _decided(verdict)):
        return
    headline = verdict.message.partition("\n")[0]
    logger.info("deployment %s: %s (%s) %s", key, verdict.status, verdict.trigger, headline)


def _decided(verdict: Verdict) -> tuple[DeploymentStatus, DeploymentStatusTrigger, bool]:
    return verdict.status, verdict.trigger, verdict.is_given_up
