"""Owns what the controller thinks of each deployment: its status, and where the controller itself fails at it."""

from __future__ import annotations

from mesh.controller.desired.controller_faults import ControllerFaults
from mesh.controller.desired.desired_state import Desired
from mesh.controller.plan.cluster_picture import Observed
from mesh.controller.report.deployment_status import Verdict
from mesh.controller.report.status_report import judge_all
from mesh.routing.snapshot import DeploymentKey
from mesh.status import DeploymentStatus


class Judge:
    def __init__(self) -> None:
        self.verdicts: dict[DeploymentKey, Verdict] = {}
        self.faults = ControllerFaults()

    def look(self, desired: Desired, observed: Observed, now_s: float) -> None:
        """Bring the verdicts up to this picture."""
        judgement = judge_all(self.verdicts, desired, observed, now_s)
        self.verdicts = judgement.verdicts
        self.faults.note("judgement", judgement.problems)

    def forgive(self, key: DeploymentKey) -> None:
        """It is deployed anew: that it failed before does not count."""
        verdict = self.verdicts.get(key)
        if verdict is not None and verdict.status == DeploymentStatus.DEPLOY_FAILED:
            del self.verdicts[key]

    @property
    def all_healthy(self) -> bool:
        return all(verdict.status == DeploymentStatus.HEALTHY for verdict in self.verdicts.values())
