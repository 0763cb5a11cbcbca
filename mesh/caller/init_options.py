"""Where a handle is used, and the options of its `_init()`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mesh.context import in_replica


class DeploymentHandleSource(StrEnum):
    """What kind of process uses a handle."""

    UNKNOWN = "UNKNOWN"
    """A driver, a task or an actor."""
    PROXY = "PROXY"
    """Never the case here: gateways use no handles. Known for compatibility."""
    REPLICA = "REPLICA"


@dataclass(frozen=True, slots=True, kw_only=True)
class InitOptions:
    """The options of a handle's `_init()`."""

    _prefer_local_routing: bool
    _source: DeploymentHandleSource
    _run_router_in_separate_loop: bool = True
    """Always: routers run on the I/O thread."""


def handle_source() -> DeploymentHandleSource:
    """The kind of this process."""
    return DeploymentHandleSource.REPLICA if in_replica() else DeploymentHandleSource.UNKNOWN
