"""`DrainPolicy`: how long a replica or gateway may take to stop."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.settings import settings
from mesh.v1 import control_pb2


@dataclass(frozen=True, slots=True)
class DrainPolicy:
    """A new field about stopping belongs here: the planner and everything that stops replicas read it."""

    timeout_s: float = 20.0
    """Time for calls in progress to end; 0: none, the process is killed."""

    margin_s: float = 5.0
    """Added before a process that has not stopped is killed."""

    @property
    def is_immediate(self) -> bool:
        return self.timeout_s <= 0

    def is_overdue(self, since_at_s: float, now_s: float) -> bool:
        """A drain that began at `since_at_s` has taken too long: the process is to be killed."""
        return now_s - since_at_s > self.timeout_s + self.margin_s

    def begin_by(self, node_ends_at_s: float) -> float:
        """The instant by which the drain has to begin to be over when the node ends."""
        return node_ends_at_s - self.timeout_s - self.margin_s


DEFAULT_DRAIN = DrainPolicy()


def drain_policy_of(options: control_pb2.DeploymentOptions) -> DrainPolicy:
    return DrainPolicy(options.graceful_shutdown_timeout_s, settings().controller.drain_margin_s)
