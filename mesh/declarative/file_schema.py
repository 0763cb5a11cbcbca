"""The schema of a configuration file: its records and the fields that each mapping may hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mesh.options import runtime_env
from mesh.options.deployments import actor_options
from mesh.options.deployments.autoscaling_options import AutoscalingConfig
from mesh.options.deployments.backpressure_options import BackpressureConfig
from mesh.options.deployments.deployment_options import OPTION_NAMES
from mesh.options.deployments.request_router_options import RequestRouterConfig
from mesh.options.gateway.controller_options import ControllerOptions
from mesh.options.gateway.grpc_options import gRPCOptions
from mesh.options.gateway.http_options import HTTPOptions
from mesh.options.gateway.tracing_options import TracingConfig
from mesh.options.logging_options import LoggingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationEntry:
    """One of `applications`."""

    import_path: str
    """`package.module:attribute` of a bound application, or of a function that builds one. Required."""
    name: str = "default"
    """Unique in the file."""
    route_prefix: str | None = "/"
    """HTTP path prefix, unique; null: no HTTP. An ingress without `__call__` does not claim the default."""
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    """Ray runtime environment in which it is imported and its replicas run; working_dir and py_modules as URIs."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """Arguments for the function that builds the application."""
    deployments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options by deployment, see below. Options that are absent keep their values from the code."""
    logging_config: Mapping[str, Any] | None = None
    """Logs of the deployments that have no `logging_config` of their own."""
    autoscaling_policy: Mapping[str, Any] | str | None = None
    """Function for the numbers of all its deployments that autoscale; see docs/autoscaling.md."""
    traffic_percent: float | None = None
    """It becomes a canary of the application that runs, and gets this share of its requests; see operations.md."""
    traffic_match: Mapping[str, str] | None = None
    """It becomes a canary that gets the requests with this header field or metadata entry: `{x-canary: "yes"}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshConfig:
    """A whole file."""

    proxy_location: str | None = None
    """Nodes with a gateway: EveryNode, HeadOnly or Disabled."""
    http_options: Mapping[str, Any] = field(default_factory=dict)
    """HTTP listener of the gateways: host, port, root_path, request_timeout_s and others; see docs/gateway.md."""
    grpc_options: Mapping[str, Any] = field(default_factory=dict)
    """gRPC listener of the gateways: port, processes, grpc_servicer_functions, request_timeout_s; see grpc.md."""
    target_capacity: float | None = None
    """Percent of all replica counts and autoscaling bounds that run; None: all."""
    logging_config: Mapping[str, Any] | None = None
    """Logs of the controller, the gateways, and applications that have none; replicas read it when they start."""
    tracing_config: Mapping[str, Any] | None = None
    """Spans: enabled, exporter_import_path, sampling_ratio. Gateways are replaced; replicas read it when they start."""
    controller_options: Mapping[str, Any] | None = None
    """Environment variables of the controller: `{runtime_env: {env_vars: {...}}}`. Used when the mesh starts."""
    applications: tuple[ApplicationEntry, ...] = ()
    """The applications to run. Required; `[]`: none."""

    @property
    def whole_http_options(self) -> Mapping[str, Any]:
        """With the defaults of what the section leaves out: a file says all of it. Empty without such a section."""
        return _whole(HTTPOptions, self.http_options)

    @property
    def whole_grpc_options(self) -> Mapping[str, Any]:
        """The same for the other section."""
        return _whole(gRPCOptions, self.grpc_options)


def _whole(kind: type[HTTPOptions] | type[gRPCOptions], section: Mapping[str, Any]) -> Mapping[str, Any]:
    if not section:
        return {}
    usual = kind()
    return {**{each.name: getattr(usual, each.name) for each in fields(kind)}, **section}


TOP_FIELDS = tuple(each.name for each in fields(MeshConfig))
APPLICATION_FIELDS = tuple(each.name for each in fields(ApplicationEntry))

DEPLOYMENT_OPTIONS = tuple(name for name in OPTION_NAMES if name not in ("name", "version", "route_prefix"))
"""Options of one deployment in a file. Its name is the key, and its version is computed from the content."""

NESTED_FIELDS: Mapping[str, tuple[str, ...]] = {
    "ray_actor_options": actor_options.KEYS,
    "runtime_env": runtime_env.KEYS,
    "autoscaling_config": tuple(each.name for each in fields(AutoscalingConfig)),
    "backpressure_config": tuple(each.name for each in fields(BackpressureConfig)),
    "request_router_config": tuple(each.name for each in fields(RequestRouterConfig)),
    "logging_config": tuple(each.name for each in fields(LoggingConfig)),
    "http_options": tuple(each.name for each in fields(HTTPOptions)),
    "grpc_options": tuple(each.name for each in fields(gRPCOptions)),
    "tracing_config": tuple(each.name for each in fields(TracingConfig)),
    "controller_options": tuple(each.name for each in fields(ControllerOptions)),
}
"""Keys that the mapping in each field may hold."""
