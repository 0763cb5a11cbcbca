"""What a call of `mesh.start` changes about the gateways of a running mesh. Pure.

Options that the call names are changed, all others stay. A dict names its keys, an `HTTPOptions` or `gRPCOptions` all
of its fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, fields
from typing import Any

from mesh.options.gateway.gateway_options import differing_fields
from mesh.options.gateway.grpc_options import gRPCOptions
from mesh.options.gateway.http_options import HTTPOptions
from mesh.v1 import control_pb2

_TLS = ("ssl_keyfile", "ssl_certfile", "ssl_keyfile_password", "ssl_ca_certs", "ssl_client_certificates")
HTTP_FIELDS: Mapping[str, str] = {
    "host": "http_host",
    "port": "http_port",
    "root_path": "http_root_path",
    "request_timeout_s": "http_request_timeout_s",
    "keep_alive_timeout_s": "http_keep_alive_timeout_s",
    "cors": "cors",
    **dict.fromkeys(_TLS, "http_tls"),
}
"""The field of GatewayOptions for each of `http_options` that gateways read."""
GRPC_FIELDS: Mapping[str, str] = {
    "port": "grpc_port",
    "processes": "processes",
    "enable_reflection": "has_reflection",
    "authentication": "authentication",
    "retry": "retry",
    "hedge_after_s": "hedge",
    "limits_per_identity": "identity_limits",
    "limits_per_method": "method_limits",
    **{name: name for name in ("request_timeout_s", "max_connection_age_s", "max_connection_age_grace_s")},
    **{name: name for name in ("max_connection_idle_s", "keepalive_s", "keepalive_timeout_s")},
    **dict.fromkeys(_TLS, "grpc_tls"),
}
_FIXED = ("controller_options",)
"""What only the next start of the mesh can change."""


@dataclass(frozen=True, slots=True)
class NamedOptions:
    """Fields of GatewayOptions that a call names."""

    names: frozenset[str]
    has_servicer_functions: bool = False
    """Whether it also names services: gateways need no functions for them, the applications that are deployed do."""

    @classmethod
    def of(cls, location: object, http: object, grpc: object, **others: object) -> NamedOptions:
        """`others`: by their fields of GatewayOptions; None: not named."""
        named = {
            *(name for name, value in {"location": location, **others}.items() if value is not None),
            *(HTTP_FIELDS[key] for key in _keys(http, HTTPOptions) if key in HTTP_FIELDS),
            *(GRPC_FIELDS[key] for key in _keys(grpc, gRPCOptions) if key in GRPC_FIELDS),
        }
        if _location_of(http) is not None:
            named.add("location")
        return cls(frozenset(named), has_servicer_functions="grpc_servicer_functions" in _keys(grpc, gRPCOptions))


@dataclass(frozen=True, slots=True)
class GatewayChange:
    """From the options of a running mesh to those that it is to have."""

    before: control_pb2.GatewayOptions
    after: control_pb2.GatewayOptions
    ignored: tuple[str, ...] = ()
    """Named options that differ, but cannot be changed."""

    @property
    def names(self) -> list[str]:
        """What changes."""
        return differing_fields(self.after, self.before)


def change_of(
    running: control_pb2.GatewayOptions, asked: control_pb2.GatewayOptions, named: NamedOptions
) -> GatewayChange:
    """`asked`: the whole options of the call, with defaults for what it does not name.

    Raises ValueError for a change that cannot be made under calls, with what to do instead.
    """
    differing = set(differing_fields(asked, running)) & named.names
    if max(1, asked.processes) == max(1, running.processes):
        differing.discard("processes")
    disabled = control_pb2.GATEWAY_LOCATION_DISABLED
    turns = {"http_host", "http_port", "grpc_port"} & differing and disabled in (asked.location, running.location)
    after = _with_fields(running, asked, {*differing, *(("location",) if turns else ())} - set(_FIXED))
    if reason := refusal_of(running, after):
        raise ValueError(reason)
    return GatewayChange(running, after, tuple(sorted(differing & set(_FIXED))))


def refusal_of(running: control_pb2.GatewayOptions, after: control_pb2.GatewayOptions) -> str:
    """Why gateways that run cannot get these options, with what to do instead; empty: they can."""
    if after.processes > 1 and after.processes != running.processes and not after.grpc_port:
        return "processes of grpc_options above 1 need a port that they can share: name one with it."
    return ""


def _with_fields(
    running: control_pb2.GatewayOptions, asked: control_pb2.GatewayOptions, names: Set[str]
) -> control_pb2.GatewayOptions:
    """What is running, with these fields as they are asked for."""
    after, chosen = control_pb2.GatewayOptions(), control_pb2.GatewayOptions()
    after.CopyFrom(running)
    chosen.CopyFrom(asked)
    for each in control_pb2.GatewayOptions.DESCRIPTOR.fields:
        (after if each.name in names else chosen).ClearField(each.name)
    after.MergeFrom(chosen)
    return after


def _keys(options: object, kind: type[Any]) -> Iterator[str]:
    if isinstance(options, kind):
        yield from (each.name for each in fields(kind))
    elif isinstance(options, Mapping):
        yield from options


def _location_of(http: object) -> object:
    return http.get("location") if isinstance(http, Mapping) else getattr(http, "location", None)
