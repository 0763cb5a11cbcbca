"""What happened to the replicas of each deployment: failures of versions and configurations, restarts, ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Set
from dataclasses import replace

from mesh.controller.actors.registry.disruptions import Disruptions
from mesh.controller.plan.cluster_picture import NO_FAILURES, NO_TALLY, Death, Failures, Replica, RestartReason, Tally
from mesh.options.deployments.rollout_policy import stable_after_s
from mesh.routing.snapshot import DeploymentKey
from mesh.status import ReplicaState

logger = logging.getLogger("mesh")

MESSAGE_MAX_CHARS = 8192
_REASON_MAX_CHARS = 500


class DeploymentRecords:
    """Written by the registry only."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.failures: dict[tuple[DeploymentKey, str], Failures] = {}
        """By deployment and version."""
        self.config_failures: dict[tuple[DeploymentKey, str], Failures] = {}
        """By deployment and version: a canary may refuse a configuration of its own. Of the last one refused."""
        self.tallies: dict[DeploymentKey, Tally] = {}
        self.last_ended: dict[DeploymentKey, str] = {}
        """The replica of each deployment that ended last, and why, in words."""
        self.disruptions = Disruptions()

    def count_success(self, replica: Replica) -> None:
        self.failures[_version_of(replica)] = replace(self._failures_of(replica), has_succeeded=True)
        self.disruptions.count_start(replica.deployment)

    def count_hang(self, replica: Replica, message: str) -> None:
        """The replica's constructor missed its deadline."""
        self.count_failure(replica, message)
        self.failures[_version_of(replica)] = replace(self._failures_of(replica), has_hung=True)

    def count_failure(self, replica: Replica, message: str) -> None:
        """The replica died or is unhealthy: its version has failed, and perhaps what it was reconfigured with."""
        failures, now_s = self._failures_of(replica), self._clock()
        stable_s = stable_after_s(replica.spec.options)
        # A replica that served for a while proves that its version works: its end starts a new count.
        is_first = replica.is_serving and now_s - replica.ready_at_s >= stable_s
        self.failures[_version_of(replica)] = replace(
            failures, count=1 if is_first else failures.count + 1, last_at_s=now_s, message=message[:MESSAGE_MAX_CHARS]
        )
        is_reconfigured = now_s - replica.reconfigured_at_s < stable_s
        if blamed := replica.next_config_version or (replica.config_version if is_reconfigured else ""):
            self.count_rejection(replica, blamed, message)

    def count_rejection(self, replica: Replica, config_version: str, message: str) -> None:
        """The replica did not take over that configuration, or did not outlive it."""
        failures = self.config_failures.get(_version_of(replica), NO_FAILURES)
        count = failures.count if failures.version == config_version else 0
        self.config_failures[_version_of(replica)] = Failures(
            version=config_version, count=count + 1, last_at_s=self._clock(), message=message[:MESSAGE_MAX_CHARS]
        )

    def count_restart(self, replica: Replica, reason: RestartReason) -> None:
        """`reason`: why it is lost if it had started."""
        if replica.state == ReplicaState.STARTING and reason != RestartReason.NODE_LOST:
            reason = RestartReason.START_FAILED
        self.disruptions.count_loss(replica, reason)
        self.tallies[replica.deployment] = self._tally_of(replica).with_restart(reason)

    def count_failed_check(self, replica: Replica) -> None:
        self.tallies[replica.deployment] = self._tally_of(replica).with_failed_check()

    def record_end(self, replica: Replica, message: str) -> None:
        reason = ", ".join(replica.stop_reasons) or message.partition("\n")[0]
        if replica.unhealthy:
            headline = replica.unhealthy.partition("\n")[0]
            reason += f" ({headline})"
        reason = reason[:_REASON_MAX_CHARS]
        self.last_ended[replica.deployment] = f"replica {replica.replica_id}: {reason}"
        if replica.unhealthy or not replica.is_leaving:
            self._count_death(replica, reason)
        if not replica.stop_reasons:
            logger.warning("replica %s ended: %s", replica.title, message)

    def restart(self, key: DeploymentKey, version: str) -> None:
        """Forget the failures of a version that was deployed, perhaps again: it gets all its attempts."""
        self.failures.pop((key, version), None)
        self.config_failures.pop((key, version), None)

    def keep(self, versions: Set[tuple[DeploymentKey, str]]) -> None:
        """Forget all other versions, and deployments without any."""
        for failures in (self.failures, self.config_failures):
            for each in failures.keys() - versions:
                del failures[each]
        keys = {key for key, _ in versions}
        self.disruptions.keep(keys)
        for records in (self.last_ended, self.tallies):
            for key in records.keys() - keys:
                del records[key]

    def _count_death(self, replica: Replica, reason: str) -> None:
        death = Death(
            replica_id=replica.replica_id,
            version=replica.version,
            node_id=replica.node_id,
            at_s=self._clock(),
            reason=reason,
        )
        self.tallies[replica.deployment] = self._tally_of(replica).with_death(death)

    def _failures_of(self, replica: Replica) -> Failures:
        return self.failures.get(_version_of(replica)) or Failures(version=replica.version)

    def _tally_of(self, replica: Replica) -> Tally:
        return self.tallies.get(replica.deployment, NO_TALLY)


def _version_of(replica: Replica) -> tuple[DeploymentKey, str]:
    return replica.deployment, replica.version
