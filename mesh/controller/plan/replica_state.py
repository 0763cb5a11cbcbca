"""The life of a replica, as the controller sees it, as a transition table."""

from enum import Enum, auto

from mesh.status import ReplicaState


class ReplicaEvent(Enum):
    READY = auto()
    """start(), describe() or reconfigure() answered."""
    RECONFIGURE = auto()
    STOP = auto()
    NODE_DRAINS = auto()
    NODE_STAYS = auto()
    """The drain of its node was called off."""


# RECOVERING is the state in which a restarted controller finds a replica. A replica that closed or never started has
# no state: it is forgotten.
REPLICA_TRANSITIONS: dict[tuple[ReplicaState, ReplicaEvent], ReplicaState] = {
    (ReplicaState.STARTING, ReplicaEvent.READY): ReplicaState.RUNNING,
    (ReplicaState.STARTING, ReplicaEvent.STOP): ReplicaState.STOPPING,
    (ReplicaState.RECOVERING, ReplicaEvent.READY): ReplicaState.RUNNING,
    (ReplicaState.RECOVERING, ReplicaEvent.STOP): ReplicaState.STOPPING,
    (ReplicaState.RUNNING, ReplicaEvent.RECONFIGURE): ReplicaState.UPDATING,
    (ReplicaState.RUNNING, ReplicaEvent.STOP): ReplicaState.STOPPING,
    (ReplicaState.UPDATING, ReplicaEvent.READY): ReplicaState.RUNNING,
    (ReplicaState.UPDATING, ReplicaEvent.STOP): ReplicaState.STOPPING,
    (ReplicaState.RUNNING, ReplicaEvent.NODE_DRAINS): ReplicaState.PENDING_MIGRATION,
    (ReplicaState.UPDATING, ReplicaEvent.NODE_DRAINS): ReplicaState.PENDING_MIGRATION,
    (ReplicaState.PENDING_MIGRATION, ReplicaEvent.NODE_STAYS): ReplicaState.RUNNING,
    (ReplicaState.PENDING_MIGRATION, ReplicaEvent.STOP): ReplicaState.STOPPING,
    # It was being reconfigured when its node began to drain, and when that was called off.
    (ReplicaState.RUNNING, ReplicaEvent.READY): ReplicaState.RUNNING,
    (ReplicaState.PENDING_MIGRATION, ReplicaEvent.READY): ReplicaState.PENDING_MIGRATION,
    # Answers that were under way when the replica began to stop.
    (ReplicaState.STOPPING, ReplicaEvent.READY): ReplicaState.STOPPING,
    (ReplicaState.STOPPING, ReplicaEvent.STOP): ReplicaState.STOPPING,
}

SERVING = frozenset({ReplicaState.RUNNING, ReplicaState.UPDATING, ReplicaState.PENDING_MIGRATION})
"""States in which callers may be sent to a replica. User code keeps serving while it is reconfigured or replaced."""
