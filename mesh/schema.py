"""Records and enums of statuses and logs under the names they have in `ray.serve.schema`.

Configuration files are checked by `mesh deploy --dry-run FILE`; they have no classes for users.
"""

from mesh.options.gateway.controller_options import ControllerOptions
from mesh.options.gateway.tracing_options import TracingConfig
from mesh.options.logging_options import EncodingType, LoggingConfig
from mesh.status import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatus,
    DeploymentStatusOverview,
    DeploymentStatusTrigger,
    ReplicaState,
)
from mesh.status import GatewayStatus as ProxyStatus
from mesh.status import MeshStatus as ServeStatus

__all__ = [
    "ApplicationStatus",
    "ApplicationStatusOverview",
    "ControllerOptions",
    "DeploymentStatus",
    "DeploymentStatusOverview",
    "DeploymentStatusTrigger",
    "EncodingType",
    "LoggingConfig",
    "ProxyStatus",
    "ReplicaState",
    "ServeStatus",
    "TracingConfig",
]
