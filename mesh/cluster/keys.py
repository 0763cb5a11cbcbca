"""The names that the mesh gives to its actors and to its entries in the cluster's KV.

Values are part of the format: a new controller adopts actors and state of an older one by these names.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

# ---- Keys of the KV --------------------------------------------------------------------------------------------------

CONTROLLER_ADDRESS_KEY = "controller/address"
"""Its "host:port"."""
CONTROLLER_FAILURE_KEY = "controller/failure"
"""Why its last start failed. Removed when a start succeeds."""
CONTROLLER_STARTS_KEY = "controller/starts"
"""How many controllers of this mesh have started, in decimal digits."""
STATE_KEY = "controller/state"
"""The desired state, without the code of deployments."""
NUMBERS_KEY = "controller/numbers"
"""What autoscaling has decided since the desired state was stored."""
EVENTS_KEY = "controller/events"
"""The last events of the mesh."""
CODE_PREFIX = "code/"
"""Packed user code, under its digest."""
DESCRIPTORS_PREFIX = "descriptors/"
"""Descriptors of the gRPC services of an application, under their digest."""
TOKEN_KEY = "token"
"""The mesh token, 32 bytes."""
SERVICER_FUNCTIONS_KEY = "servicer_functions"
"""The packed add-functions that `mesh.start` was given."""

ERASURE_KEY = "erasure"
"""There while a process erases the mesh; the Unix time at which that began."""

# ---- Names of actors -------------------------------------------------------------------------------------------------

ACTOR_PREFIX = "MESH_"
"""Starts the name of every actor and placement group of the mesh. User code may have actors in the same namespace."""
CONTROLLER_NAME = "MESH_CONTROLLER"
REPLICA_PREFIX = "MESH_REPLICA::"
GATEWAY_PREFIX = "MESH_GATEWAY::"
POLICY_PREFIX = "MESH_POLICY::"


class DeploymentKey(NamedTuple):
    """Names one deployment of one application."""

    app: str
    name: str

    @property
    def app_name(self) -> str:
        """`app`, under its name in Ray Serve."""
        return self.app

    def __str__(self) -> str:
        return f"{self.app}/{self.name}"


@dataclass(frozen=True, slots=True)
class ReplicaName:
    """The parts of a replica's actor name: they identify the replica before it has a process."""

    deployment: tuple[str, str]
    """Application and deployment."""
    replica_id: str
    version_digest: str

    def __str__(self) -> str:
        """The whole name."""
        return f"{REPLICA_PREFIX}{'#'.join(self.deployment)}#{self.version_digest}#{self.replica_id}"

    @classmethod
    def read(cls, name: str) -> ReplicaName | None:
        """The parts of a name that `replica_name` made; None for any other name."""
        parts = name.removeprefix(REPLICA_PREFIX).rsplit("#", 3)
        if len(parts) != 4:
            return None
        app, deployment, version_digest, replica_id = parts
        return cls((app, deployment), replica_id, version_digest)

    def is_of(self, version: str) -> bool:
        """Whether the replica is of that version."""
        return self.version_digest == _digest(version)


def replica_name(deployment: tuple[str, str], replica_id: str, version: str) -> str:
    """The name of its actor: prefix, application, deployment, digest of the version and id, with # between them."""
    return f"{REPLICA_PREFIX}{'#'.join(deployment)}#{_digest(version)}#{replica_id}"


def read_gateway_name(name: str) -> tuple[str, int, int]:
    """Node id, index and revision of a name that `gateway_name` made."""
    node_id, *numbers = name.removeprefix(GATEWAY_PREFIX).split("#")
    index, revision, *_ = (*map(int, numbers), 0, 0)
    return node_id, index, revision


def gateway_name(node_id: str, index: int, revision: int = 0) -> str:
    """`index`: among the gateways of the node, from 0. `revision`: how often their options had changed before."""
    if revision:
        return f"{GATEWAY_PREFIX}{node_id}#{index}#{revision}"
    return f"{GATEWAY_PREFIX}{node_id}#{index}" if index else f"{GATEWAY_PREFIX}{node_id}"


def policy_name(deployment: tuple[str, str], policy_id: str) -> str:
    """The name of its actor; the deployment's name is empty for the policy of an application."""
    return f"{POLICY_PREFIX}{'#'.join(deployment)}#{policy_id}"


def _digest(version: str) -> str:
    """Versions are of any length and may contain any character."""
    return hashlib.sha256(version.encode()).hexdigest()[:8]
