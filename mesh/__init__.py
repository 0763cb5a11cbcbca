"""A mesh of Python microservices on Ray, gRPC first. README.md gives a tour.

Only the names in `mesh`, `mesh.exceptions`, `mesh.metrics`, `mesh.schema`, `mesh.grpc_util`, `mesh.inference`,
`mesh.request_router` and `mesh.testing`, and `mesh.context.current_request`, carry guarantees. Everything else may
change in any release.
"""

from typing import TYPE_CHECKING, NoReturn

import mesh.settings  # noqa: F401  It must come before all that imports gRPC, and says why.

# isort: split
from mesh import context as context
from mesh import exceptions, metrics, schema
from mesh.api import (
    RunTarget,
    _run,  # noqa: F401  Under the name of Ray Serve.
    delete,
    get_app_handle,
    get_deployment_handle,
    run,
    run_many,
    shutdown,
    shutdown_async,
    start,
    status,
)
from mesh.batching.batch_decorator import batch
from mesh.caller.call_options import CallOptions
from mesh.caller.response import DeploymentResponse, DeploymentResponseGenerator
from mesh.config import DeploymentConfig
from mesh.context import get_replica_context
from mesh.deployment import Application, Deployment, deployment
from mesh.handle import DeploymentHandle
from mesh.multiplex.multiplex_decorator import get_multiplexed_model_id, multiplexed
from mesh.options.absent_options import why_no_attribute
from mesh.options.deployments.autoscaling_options import AutoscalingConfig
from mesh.options.deployments.autoscaling_policy import AutoscalingContext, AutoscalingPolicy
from mesh.options.gateway.controller_options import ControllerOptions
from mesh.options.gateway.grpc_options import gRPCOptions
from mesh.options.gateway.http_options import HTTPOptions
from mesh.options.gateway.proxy_location import ProxyLocation
from mesh.options.gateway.tracing_options import TracingConfig
from mesh.options.logging_options import LoggingConfig
from mesh.usercode import decorator_advice
from mesh.web.ingress import ingress

__all__ = [
    "Application",
    "AutoscalingConfig",
    "AutoscalingContext",
    "AutoscalingPolicy",
    "CallOptions",
    "ControllerOptions",
    "Deployment",
    "DeploymentConfig",
    "DeploymentHandle",
    "DeploymentResponse",
    "DeploymentResponseGenerator",
    "HTTPOptions",
    "LoggingConfig",
    "ProxyLocation",
    "RunTarget",
    "TracingConfig",
    "batch",
    "delete",
    "deployment",
    "exceptions",
    "gRPCOptions",
    "get_app_handle",
    "get_deployment_handle",
    "get_multiplexed_model_id",
    "get_replica_context",
    "ingress",
    "metrics",
    "multiplexed",
    "run",
    "run_many",
    "schema",
    "shutdown",
    "shutdown_async",
    "start",
    "status",
]

decorator_advice.install()


def __dir__() -> list[str]:
    """The public names. Python adds every imported submodule, of which only `context` is one."""
    return [*__all__, "context"]


if not TYPE_CHECKING:  # type checkers know the names

    def __getattr__(name: str) -> NoReturn:
        # Without the name, for which Python would guess a second time where it shows the error.
        raise AttributeError(why_no_attribute(name, __all__), name=None)
