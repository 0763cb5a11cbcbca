"""The options of gateways: `HTTPOptions`, `gRPCOptions`, `ProxyLocation`, and their message."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from mesh.options import cors_options, logging_options, option_checks
from mesh.options.absent_options import check_known, why_unknown
from mesh.options.cors_options import CorsOptions
from mesh.options.keyword_advice import with_field_advice
from mesh.options.logging_options import LoggingConfig
from mesh.options.security import authentication_options, limit_options, tls_options
from mesh.options.security.authentication_options import Authentication
from mesh.options.security.limit_options import LimitOptions
from mesh.settings import settings
from mesh.v1 import control_pb2

logger = logging.getLogger("mesh")

_MAX_PORT = 65_535
_MAX_PROCESSES = 256
_ROOT_PATH = re.compile(r"(/[A-Za-z0-9\-._~!$&'()*+,;=:@]+)*/?")


class ProxyLocation(StrEnum):
    """The nodes that run gateways."""

    Disabled = "Disabled"
    HeadOnly = "HeadOnly"
    EveryNode = "EveryNode"


_LOCATIONS = {
    ProxyLocation.Disabled: control_pb2.GATEWAY_LOCATION_DISABLED,
    ProxyLocation.HeadOnly: control_pb2.GATEWAY_LOCATION_HEAD_ONLY,
    ProxyLocation.EveryNode: control_pb2.GATEWAY_LOCATION_EVERY_NODE,
}


@with_field_advice
@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPOptions:
    """The HTTP side of the gateways."""

    host: str | None = "localhost"
    """Interface to listen on. None turns the gateways off."""
    port: int | None = 8000
    """0: any free port; None: no port of its own. Every port serves HTTP and gRPC."""
    location: ProxyLocation | str | None = None
    """Old form of `proxy_location`, which overrides it."""
    root_path: str = ""
    """Path at which a proxy in front has mounted the mesh, for instance "/api"; applications see it in their URLs."""
    request_timeout_s: float | None = None
    """Maximum duration of a web request in seconds, its answer included; None: no limit. WebSockets have none."""
    keep_alive_timeout_s: int = 90
    """A connection of HTTP/1.1 is closed this long after its last request, in seconds."""
    ssl_keyfile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile_password: str | None = None
    ssl_ca_certs: str | None = None
    ssl_client_certificates: str = "required"
    cors: CorsOptions | Mapping[str, Any] | None = None
    """Pages of other origins that may call from a browser; None: none."""
    middlewares: Sequence[object] = ()
    num_cpus: float = 0

    def __post_init__(self) -> None:
        if self.host is not None:
            option_checks.text("http_options['host']", self.host)
        _check_port("http_options['port']", self.port)
        _check_timeout("http_options['request_timeout_s']", self.request_timeout_s)
        _check_root_path(self.root_path)
        option_checks.number("http_options['keep_alive_timeout_s']", self.keep_alive_timeout_s, may_equal=False)
        tls_options.check("http_options", self)
        object.__setattr__(self, "cors", cors_options.parse(self.cors))
        for name in ("middlewares", "num_cpus"):
            if getattr(self, name):
                raise ValueError(f"http_options[{name!r}] has no effect here. Leave it out.")


@with_field_advice
@dataclass(frozen=True, slots=True, kw_only=True)
class gRPCOptions:
    """The gRPC side of the gateways."""

    port: int | None = 9000
    """0: any free port; None: no gRPC listener."""
    processes: int = 1
    """Gateways of each node, which share the port: the kernel gives each connection to one of them."""
    grpc_servicer_functions: Sequence[str | Callable[..., Any]] = ()
    """`add_XServicer_to_server` functions, or their import paths, whose methods every ingress serves if it has them."""
    enable_reflection: bool = True
    """Server reflection: clients without a `.proto` file can list and call the services of all applications."""
    request_timeout_s: float | None = None
    """Maximum duration of a call in seconds; None: only the deadline of the client limits it."""
    max_connection_age_s: float | None = None
    """Clients are asked to connect again after about this time, so that they spread over new gateways; None: never."""
    max_connection_age_grace_s: float | None = None
    """How long calls on a connection that is too old may still take before it is closed; None: as long as they like."""
    max_connection_idle_s: float | None = None
    """A connection without calls is closed after this time; None: never."""
    keepalive_s: float = 60.0
    """A client that has sent nothing for this long gets a PING."""
    keepalive_timeout_s: float = 20.0
    """A client that does not answer it for this long is gone; its calls are cancelled."""
    ssl_keyfile: str | None = None
    """Private key of the certificate, a PEM file on each node that is read again when it changes."""
    ssl_certfile: str | None = None
    """Certificate chain in PEM; with it the port speaks TLS only."""
    ssl_keyfile_password: str | None = None
    """Where the password of the key is: "file:PATH" on each node."""
    ssl_ca_certs: str | None = None
    """Authorities in PEM that sign the certificates of clients (mTLS)."""
    ssl_client_certificates: str = "required"
    """With `ssl_ca_certs`: "required", or "optional" for clients that may also come without one."""
    authentication: str | Mapping[str, Any] | Authentication | None = None
    """How gateways learn who calls, in all dialects; None: they do not ask."""
    limits_per_identity: Mapping[str, Mapping[str, Any] | LimitOptions] = field(default_factory=dict)
    """What clients may call at one gateway, by name; "*": each other one."""
    limits_per_method: Mapping[str, Mapping[str, Any] | LimitOptions] = field(default_factory=dict)
    """How much a method is called at one gateway: "/package.Service/Method", "/package.Service/*", "*"."""

    def __post_init__(self) -> None:
        _check_port("grpc_options['port']", self.port)
        option_checks.whole_number("grpc_options['processes']", self.processes, 1, _MAX_PROCESSES)
        if self.processes > 1 and not self.port:
            raise ValueError("grpc_options['processes'] above 1 needs a port that they can share: choose one.")
        functions = self.grpc_servicer_functions
        if isinstance(functions, str) or not isinstance(functions, Sequence):
            raise TypeError(f"grpc_options['grpc_servicer_functions'] must be a list, got {functions!r}.")
        if not isinstance(self.enable_reflection, bool):
            raise TypeError(f"grpc_options['enable_reflection'] must be True or False, got {self.enable_reflection!r}.")
        for name in (
            "request_timeout_s",
            "max_connection_age_s",
            "max_connection_age_grace_s",
            "max_connection_idle_s",
        ):
            _check_timeout(f"grpc_options[{name!r}]", getattr(self, name))
        for name in ("keepalive_s", "keepalive_timeout_s"):
            option_checks.number(f"grpc_options[{name!r}]", getattr(self, name), may_equal=False)
        tls_options.check("grpc_options", self)
        object.__setattr__(self, "authentication", authentication_options.parse(self.authentication))
        for name in ("limits_per_identity", "limits_per_method"):
            object.__setattr__(self, name, limit_options.parse(f"grpc_options[{name!r}]", getattr(self, name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayRequest:
    """The gateway options of one call of `mesh.start`."""

    location: ProxyLocation
    http: HTTPOptions
    grpc: gRPCOptions
    logging: LoggingConfig | None = None

    def to_message(self) -> control_pb2.GatewayOptions:
        authentication, cors = self.grpc.authentication, self.http.cors
        return control_pb2.GatewayOptions(
            location=_LOCATIONS[self.location],
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
            grpc_tls=tls_options.to_message(self.grpc),
            http_tls=tls_options.to_message(self.http),
            cors=cors.to_message() if isinstance(cors, CorsOptions) else None,
            authentication=authentication.to_message() if isinstance(authentication, Authentication) else None,
            identity_limits=limit_options.to_messages(self.grpc.limits_per_identity),  # type: ignore[arg-type]
            method_limits=limit_options.to_messages(self.grpc.limits_per_method),  # type: ignore[arg-type]
        )


def parse(
    proxy_location: ProxyLocation | str | None,
    http_options: HTTPOptions | Mapping[str, Any] | None,
    grpc_options: gRPCOptions | Mapping[str, Any] | None,
    logging_config: LoggingConfig | Mapping[str, Any] | None = None,
) -> GatewayRequest:
    """Raises TypeError or ValueError naming the option that is wrong."""
    http = _parse_http(http_options)
    grpc = _parse_grpc(grpc_options)
    location = _location(proxy_location, http)
    asks_for_certificates = isinstance(grpc.authentication, Authentication) and grpc.authentication.certificates
    if asks_for_certificates and grpc.ssl_ca_certs is None and http.ssl_ca_certs is None:
        raise ValueError("grpc_options['authentication']['certificates'] needs ssl_ca_certs of a port.")
    if http.host is None or (http.port is None and grpc.port is None):
        location = ProxyLocation.Disabled
    logs = None if logging_config is None else logging_options.parse(logging_config)
    return GatewayRequest(location=location, http=http, grpc=grpc, logging=logs)


def differing_fields(asked: control_pb2.GatewayOptions, running: control_pb2.GatewayOptions) -> list[str]:
    """Names of the options that differ between the request and the running mesh."""
    given, present = ({option.name: value for option, value in each.ListFields()} for each in (asked, running))
    names = (option.name for option in control_pb2.GatewayOptions.DESCRIPTOR.fields)
    return [name for name in names if given.get(name) != present.get(name)]


def _parse_http(options: HTTPOptions | Mapping[str, Any] | None) -> HTTPOptions:
    if isinstance(options, HTTPOptions):
        return options
    given = option_checks.mapping("http_options", {} if options is None else options)
    known = [each.name for each in fields(HTTPOptions)]
    for key in given:
        if key not in known:
            logger.warning("ignored: http_options[%r] %s", key, why_unknown(key, known))
    return HTTPOptions(**{key: value for key, value in given.items() if key in known})  # type: ignore[arg-type]


def _parse_grpc(options: gRPCOptions | Mapping[str, Any] | None) -> gRPCOptions:
    if isinstance(options, gRPCOptions):
        return options
    given = option_checks.mapping("grpc_options", {} if options is None else options)
    check_known("grpc_options", given, (each.name for each in fields(gRPCOptions)))
    return gRPCOptions(**given)  # type: ignore[arg-type]


def _location(proxy_location: ProxyLocation | str | None, http: HTTPOptions) -> ProxyLocation:
    asked = proxy_location if proxy_location is not None else http.location
    if asked is None:
        return ProxyLocation.EveryNode
    if asked == "NoServer":
        return ProxyLocation.Disabled
    if not isinstance(asked, str):
        raise TypeError(f"proxy_location must be a string or a ProxyLocation, got {asked!r}.")
    try:
        return ProxyLocation(asked)
    except ValueError as error:
        raise ValueError(f"proxy_location must be one of {', '.join(ProxyLocation)}, got {asked!r}.") from error


def _check_port(name: str, port: object) -> None:
    if port is not None:
        option_checks.whole_number(name, port, 0, _MAX_PORT)


def _check_root_path(path: object) -> None:
    option_checks.text("http_options['root_path']", path)
    if path and not _ROOT_PATH.fullmatch(str(path)):
        raise ValueError(f"http_options['root_path'] must begin with '/' and need no percent-encoding, got {path!r}.")


def _check_timeout(name: str, value: object) -> None:
    if value is not None:
        option_checks.number(name, value, may_equal=False)
