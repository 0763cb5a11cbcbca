"""The places for calls at a deployment's replicas, and the words for calls that wait for one. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.routing.snapshot import DeploymentKey

_ADVICE = "raise max_ongoing_requests or num_replicas"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """What one router knows of the places of its deployment."""

    busy: int = 0
    total: int = 0
    """Places of the connected replicas."""
    connected: int = 0
    """Replicas that calls can be sent to."""
    listed: int = 0
    """Replicas that the controller lists."""

    @property
    def free(self) -> int:
        return self.total - self.busy

    @property
    def usage(self) -> str:
        """How busy they are, in words."""
        if self.connected:
            return f"{self.busy} of {self.total} calls busy on {_replicas(self.connected)}"
        return f"{_replicas(self.listed)} listed, none connected yet" if self.listed else "no replica is running"

    @property
    def advice(self) -> str:
        return _ADVICE if self.connected else "see `mesh status`"


def queued_text(key: DeploymentKey, waited_s: float, places: Places) -> str:
    """What a call that is still queued has waited for."""
    return f"waited {waited_s:.1f} s for a free place of {key}: {places.usage}; {places.advice}"


def sent_late_text(key: DeploymentKey, waited_s: float, lived_s: float) -> str:
    """What a call waited for before it was sent; empty if that was less than half of its time."""
    if waited_s < lived_s / 2:
        return ""
    return f"waited {waited_s:.1f} of {lived_s:.1f} s for a free place of {key}; {_ADVICE}, or allow more time"


def _replicas(count: int) -> str:
    return "1 replica" if count == 1 else f"{count} replicas"
