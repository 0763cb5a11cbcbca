"""Replicas that are away, by deployment, and whether another one may be taken away because of its health.

Theory of operation. A replica that has left counts as away until another one has come up since, but never more are away
than are missing: one that stops because another serves in its place leaves no gap. What is missing because more
replicas are wanted than before has never left, so it does not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set

from mesh.controller.desired.desired_state import DeploymentTarget
from mesh.controller.plan.actions import Reason
from mesh.controller.plan.cluster_picture import Replica, RestartReason
from mesh.routing.snapshot import DeploymentKey

_REPLACING = (Reason.UPDATE, Reason.NODE_DRAIN, Reason.MAKE_ROOM)


class Disruptions:
    def __init__(self) -> None:
        self._targets: Mapping[DeploymentKey, DeploymentTarget] = {}
        self._unreplaced: Counter[DeploymentKey] = Counter()
        """Replicas that have left, and for which no other one has come up since."""

    def expect(self, targets: Mapping[DeploymentKey, DeploymentTarget], serving: Mapping[DeploymentKey, int]) -> None:
        """What is wanted from now on. `serving`: how many replicas of each deployment serve; not those with none."""
        for key, count in self._unreplaced.items():
            if count and key in self._targets:
                self._unreplaced[key] = self._away(self._targets[key], serving.get(key, 0))
        self._targets = targets

    def keep(self, keys: Set[DeploymentKey]) -> None:
        """Forget other deployments."""
        for key in self._unreplaced.keys() - keys:
            del self._unreplaced[key]

    def count_start(self, key: DeploymentKey) -> None:
        """A replica of the deployment has come up."""
        self._unreplaced[key] = max(0, self._unreplaced[key] - 1)

    def count_loss(self, replica: Replica, reason: RestartReason) -> None:
        """The replica has failed. One that has never served leaves no gap."""
        has_served = replica.is_serving and reason in (RestartReason.DIED, RestartReason.NODE_LOST)
        self._unreplaced[replica.deployment] += has_served or reason == RestartReason.UNHEALTHY

    def count_stop(self, replica: Replica, reason: Reason) -> None:
        """The replica is being stopped."""
        self._unreplaced[replica.deployment] += replica.is_serving and reason in _REPLACING

    def allows_another(self, key: DeploymentKey, serving: int) -> bool:
        """Not if as many are away as may be, for whatever reason, while that number serves.

        What fails the health checks of many at once is more likely something that they share. They serve on, and each
        gets its turn when a replacement serves.
        """
        target = self._targets.get(key)
        return target is None or self._away(target, serving) < target.pace.unhealthy_max

    def _away(self, target: DeploymentTarget, serving: int) -> int:
        return min(self._unreplaced[target.key], max(0, target.num_replicas - serving))
