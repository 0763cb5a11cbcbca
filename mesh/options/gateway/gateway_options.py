"""The options of one call of `mesh.start`, and their message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mesh.options import logging_options
from mesh.options.calls import call_policies
from mesh.options.gateway import controller_options as controller_side
from mesh.options.gateway import grpc_options as grpc_side
from mesh.options.gateway import http_options as http_side
from mesh.options.gateway import proxy_location as locations
from mesh.options.gateway import tracing_options as tracing_side
from mesh.options.gateway.controller_options import ControllerOptions
from mesh.options.gateway.cors_options import CorsOptions
from mesh.options.gateway.grpc_options import gRPCOptions
from mesh.options.gateway.http_options import HTTPOptions
from mesh.options.gateway.proxy_location import ProxyLocation
from mesh.options.gateway.tracing_options import TracingConfig
from mesh.options.logging_options import LoggingConfig
from mesh.options.security import limit_options, tls_options
from mesh.options.security.authentication_options import Authentication
from mesh.settings import settings
from mesh.v1 import control_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayRequest:
    """The gateway options of one call of `mesh.start`."""

    location: ProxyLocation
    http: HTTPOptions
    grpc: gRPCOptions
    logging: LoggingConfig | None = None
    tracing: TracingConfig | None = None
    controller: ControllerOptions = field(default_factory=ControllerOptions)

    def to_message(self) -> control_pb2.GatewayOptions:
        authentication, cors = self.grpc.authentication, self.http.cors
        return control_pb2.GatewayOptions(
            location=locations.to_message(self.location),
            grpc_host=settings().gateway.host,
            grpc_port=self.grpc.port,
            processes=self.grpc.processes,
            has_reflection=self.grpc.enable_reflection,
            http_host=self.http.host or "",
            http_port=self.http.port,
            http_keep_alive_timeout_s=self.http.keep_alive_timeout_s,
            http_root_path=self.http.root_path.rstrip("/"),
            http_request_timeout_s=self.http.request_timeout_s,
            max_message_bytes=settings().payload.message_max_bytes,
            request_timeout_s=self.grpc.request_timeout_s,
            max_connection_age_s=self.grpc.max_connection_age_s,
            max_connection_age_grace_s=self.grpc.max_connection_age_grace_s,
            max_connection_idle_s=self.grpc.max_connection_idle_s,
            keepalive_s=self.grpc.keepalive_s,
            keepalive_timeout_s=self.grpc.keepalive_timeout_s,
            logging=self.logging.to_message() if self.logging is not None else None,
            retry=call_policies.retry_message(self.grpc.retry),  # type: ignore[arg-type]  # checked by gRPCOptions
            hedge=call_policies.hedge_message(self.grpc.hedge_after_s),  # type: ignore[arg-type]  # the same
            grpc_tls=tls_options.to_message(self.grpc),
            http_tls=tls_options.to_message(self.http),
            cors=cors.to_message() if isinstance(cors, CorsOptions) else None,
            authentication=authentication.to_message() if isinstance(authentication, Authentication) else None,
            identity_limits=limit_options.to_messages(self.grpc.limits_per_identity),  # type: ignore[arg-type]
            method_limits=limit_options.to_messages(self.grpc.limits_per_method),  # type: ignore[arg-type]
            tracing=self.tracing.to_message() if self.tracing is not None else None,
            controller_options=self.controller.digest(),
        )


def parse(
    proxy_location: ProxyLocation | str | None,
    http_options: HTTPOptions | Mapping[str, Any] | None,
    grpc_options: gRPCOptions | Mapping[str, Any] | None,
    logging_config: LoggingConfig | Mapping[str, Any] | None = None,
    tracing_config: TracingConfig | Mapping[str, Any] | None = None,
    controller_options: ControllerOptions | Mapping[str, Any] | None = None,
) -> GatewayRequest:
    """Raises TypeError or ValueError naming the option that is wrong."""
    http = http_side.parse(http_options)
    grpc = grpc_side.parse(grpc_options)
    location = locations.parse(http.location if proxy_location is None else proxy_location)
    asks_for_certificates = isinstance(grpc.authentication, Authentication) and grpc.authentication.certificates
    if asks_for_certificates and grpc.ssl_ca_certs is None and http.ssl_ca_certs is None:
        raise ValueError("grpc_options['authentication']['certificates'] needs ssl_ca_certs of a port.")
    if grpc.port and grpc.port == http.port and _overlap(settings().gateway.host, http.host):
        raise ValueError(
            f"http_options['port'] is {http.port}, as that of grpc_options: every port speaks gRPC and HTTP, so one of "
            "them is enough. Let the other one be None, in a file null."
        )
    if http.host is None or (http.port is None and grpc.port is None):
        location = ProxyLocation.Disabled
    logs = None if logging_config is None else logging_options.parse(logging_config)
    return GatewayRequest(
        location=location,
        http=http,
        grpc=grpc,
        logging=logs,
        tracing=tracing_side.parse(tracing_config),
        controller=controller_side.parse(controller_options),
    )


def differing_fields(asked: control_pb2.GatewayOptions, running: control_pb2.GatewayOptions) -> list[str]:
    """Names of the options that differ between the request and the running mesh."""
    given, present = ({option.name: value for option, value in each.ListFields()} for each in (asked, running))
    names = (option.name for option in control_pb2.GatewayOptions.DESCRIPTOR.fields)
    return [name for name in names if given.get(name) != present.get(name)]


def _overlap(one: str, other: str | None) -> bool:
    """Whether two hosts have an interface in common; None stands for no host."""
    hosts = {"127.0.0.1" if each == "localhost" else each for each in (one, other)}
    return None not in hosts and (len(hosts) == 1 or not hosts.isdisjoint({"", "0.0.0.0", "::"}))
