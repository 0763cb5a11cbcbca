"""`gRPCOptions`: the gRPC side of the gateways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mesh.options import option_checks
from mesh.options.calls.hedge_option import HedgePolicy, hedge_policy
from mesh.options.calls.retry_option import RetryPolicy, retry_policy
from mesh.options.gateway import listener_checks
from mesh.options.keyword_advice import with_field_advice
from mesh.options.option_record import record_of
from mesh.options.security import authentication_options, limit_options, tls_options
from mesh.options.security.authentication_options import Authentication
from mesh.options.security.limit_options import LimitOptions

_MAX_PROCESSES = 256


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
    retry: RetryPolicy | Mapping[str, object] | None = None
    """When calls of idempotent unary methods that failed are sent again, in all dialects; None: never."""
    hedge_after_s: HedgePolicy | float | str | None = None
    """When a second copy of a call of such a method is sent to another replica: seconds, or "p95"; None: never."""
    limits_per_identity: Mapping[str, Mapping[str, Any] | LimitOptions] = field(default_factory=dict)
    """What clients may call at one gateway, by name; "*": each other one."""
    limits_per_method: Mapping[str, Mapping[str, Any] | LimitOptions] = field(default_factory=dict)
    """How much a method is called at one gateway: "/package.Service/Method", "/package.Service/*", "*"."""

    def __post_init__(self) -> None:
        listener_checks.check_port("grpc_options['port']", self.port)
        option_checks.whole_number("grpc_options['processes']", self.processes, 1, _MAX_PROCESSES)
        if self.processes > 1 and not self.port:
            raise ValueError("grpc_options['processes'] above 1 needs a port that they can share: choose one.")
        functions = self.grpc_servicer_functions
        if isinstance(functions, str) or not isinstance(functions, Sequence):
            raise TypeError(f"grpc_options['grpc_servicer_functions'] must be a list, got {functions!r}.")
        option_checks.flag("grpc_options['enable_reflection']", self.enable_reflection)
        for name in (
            "request_timeout_s",
            "max_connection_age_s",
            "max_connection_age_grace_s",
            "max_connection_idle_s",
        ):
            listener_checks.check_timeout(f"grpc_options[{name!r}]", getattr(self, name))
        for name in ("keepalive_s", "keepalive_timeout_s"):
            option_checks.number(f"grpc_options[{name!r}]", getattr(self, name), may_equal=False)
        tls_options.check("grpc_options", self)
        object.__setattr__(self, "retry", retry_policy(self.retry, "grpc_options['retry']"))
        hedge = hedge_policy(self.hedge_after_s, "grpc_options['hedge_after_s']")
        object.__setattr__(self, "hedge_after_s", hedge)
        object.__setattr__(self, "authentication", authentication_options.parse(self.authentication))
        for name in ("limits_per_identity", "limits_per_method"):
            object.__setattr__(self, name, limit_options.parse(f"grpc_options[{name!r}]", getattr(self, name)))


def parse(options: gRPCOptions | Mapping[str, Any] | None) -> gRPCOptions:
    return record_of(gRPCOptions, "grpc_options", {} if options is None else options)
