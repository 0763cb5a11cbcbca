"""`HTTPOptions`: the HTTP side of the gateways."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from mesh.options import option_checks
from mesh.options.absent_options import why_unknown
from mesh.options.gateway import cors_options, listener_checks
from mesh.options.gateway.cors_options import CorsOptions
from mesh.options.gateway.proxy_location import ProxyLocation
from mesh.options.keyword_advice import with_field_advice
from mesh.options.security import tls_options
from mesh.settings import settings

logger = logging.getLogger("mesh")

_ROOT_PATH = re.compile(r"(/[A-Za-z0-9\-._~!$&'()*+,;=:@]+)*/?")


@with_field_advice
@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPOptions:
    """The HTTP side of the gateways."""

    host: str | None = field(default_factory=lambda: settings().gateway.http_host)
    """Interface to listen on, by default that of MESH_GATEWAY_HTTP_HOST. None turns the gateways off."""
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
    """Private key of the certificate, a PEM file on each node that is read again when it changes."""
    ssl_certfile: str | None = None
    """Certificate chain in PEM; with it the port speaks TLS only. ValueError without `ssl_keyfile`, and the reverse."""
    ssl_keyfile_password: str | None = None
    """Where the password of the key is: "file:PATH" on each node."""
    ssl_ca_certs: str | None = None
    """Authorities in PEM that sign the certificates of clients (mTLS)."""
    ssl_client_certificates: str = "required"
    """With `ssl_ca_certs`: "required", or "optional" for clients that may also come without one."""
    cors: CorsOptions | Mapping[str, Any] | None = None
    """Pages of other origins that may call from a browser; None: none."""
    middlewares: Sequence[object] = ()
    """ValueError unless it is empty: gateways run no code of others. An application may have its own middleware."""
    num_cpus: float = 0
    """ValueError unless it is 0: gateways reserve no CPUs."""

    def __post_init__(self) -> None:
        if self.host is not None:
            option_checks.text("http_options['host']", self.host)
        listener_checks.check_port("http_options['port']", self.port)
        listener_checks.check_timeout("http_options['request_timeout_s']", self.request_timeout_s)
        _check_root_path(self.root_path)
        option_checks.number("http_options['keep_alive_timeout_s']", self.keep_alive_timeout_s, may_equal=False)
        tls_options.check("http_options", self)
        object.__setattr__(self, "cors", cors_options.parse(self.cors))
        for name in ("middlewares", "num_cpus"):
            if getattr(self, name):
                raise ValueError(f"http_options[{name!r}] has no effect here. Leave it out.")


def parse(options: HTTPOptions | Mapping[str, Any] | None) -> HTTPOptions:
    if isinstance(options, HTTPOptions):
        return options
    given = option_checks.mapping("http_options", {} if options is None else options)
    known = [each.name for each in fields(HTTPOptions)]
    for key in given:
        if key not in known:
            logger.warning("ignored: http_options[%r] %s", key, why_unknown(key, known))
    return HTTPOptions(**{key: value for key, value in given.items() if key in known})  # type: ignore[arg-type]


def _check_root_path(path: object) -> None:
    option_checks.text("http_options['root_path']", path)
    if path and not _ROOT_PATH.fullmatch(str(path)):
        raise ValueError(f"http_options['root_path'] must begin with '/' and need no percent-encoding, got {path!r}.")
