"""The process-wide settings; the only module that reads the environment. `mesh/defaults/` has their groups.

Every field can be set by an environment variable: `MESH_`, the prefix of its group and the field's name in capitals,
for instance `MESH_GATEWAY_LAME_DUCK_S=0` or `MESH_STREAM_CREDITS=64`. They are read once per process.
"""

from __future__ import annotations

import difflib
import logging
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from mesh.defaults.control_settings import ClientSettings, ControllerSettings, LogSettings
from mesh.defaults.data_path_settings import (
    LinkSettings,
    PayloadSettings,
    ProcessSettings,
    ReplicaSettings,
    RoutingSettings,
)
from mesh.defaults.gateway_settings import GatewaySettings

# gRPC reads this when it is imported; `mesh/__init__.py` imports this module before. From grpcio 1.80 on, its fork
# handlers crash processes that are forked while it is in use, such as the workers of a PyTorch DataLoader.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

logger = logging.getLogger("mesh")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    link: LinkSettings = field(default_factory=LinkSettings)
    payload: PayloadSettings = field(default_factory=PayloadSettings)
    routing: RoutingSettings = field(default_factory=RoutingSettings)
    process: ProcessSettings = field(default_factory=ProcessSettings)
    replica: ReplicaSettings = field(default_factory=ReplicaSettings)
    logs: LogSettings = field(default_factory=LogSettings)
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    client: ClientSettings = field(default_factory=ClientSettings)
    controller: ControllerSettings = field(default_factory=ControllerSettings)


_MAY_BE_ZERO = {
    "MESH_CONTROLLER_HEALTH_JITTER_SHARE",
    "MESH_CONTROLLER_MIN_READY_S",
    "MESH_ERROR_DETAILS_MAX_CHARS",
    "MESH_FORCE_LOCAL_TESTING_MODE",
    "MESH_FREED_BYTES_KEPT",
    "MESH_GATEWAY_DELETED_APPLICATIONS_KEPT",
    "MESH_GATEWAY_DRAIN_TIMEOUT_S",
    "MESH_GATEWAY_HTTP_BODY_RATE_MIN_BYTES_PER_S",
    "MESH_GATEWAY_LAME_DUCK_S",
    "MESH_GC_THRESHOLD",
    "MESH_LINK_RECONNECT_DELAY_MAX_S",
    "MESH_MULTIPLEX_SPILL_DELAY_S",
    "MESH_OBJECT_STORE_MIN_BYTES",
    "MESH_ROUTER_LINGER_S",
    "MESH_SLOW_START_S",
}
"""The other numbers must be more than 0: without credit, time or room nothing would ever move."""

_MAXIMUM = {"MESH_LINK_BATCH_MAX_BYTES": 32 * 1024 * 1024, "MESH_PART_BYTES": 32 * 1024 * 1024}
"""Replicas break a link that carries a message of more than 64 MiB."""


@cache
def settings() -> Settings:
    """Settings of this process: defaults overridden by the environment. Raises ValueError naming a bad variable."""
    groups: dict[str, Any] = {each.name: each.default_factory for each in fields(Settings)}
    _warn_of_misspelt(variable_of(kind, each.name) for kind in groups.values() for each in fields(kind))
    return Settings(**{name: kind(**dict(_given(kind))) for name, kind in groups.items()})


def variable_of(kind: type[Any], name: str) -> str:
    """The environment variable of one field of a group."""
    return f"MESH_{kind.PREFIX}{name.upper()}"


def _warn_of_misspelt(known: Iterable[str]) -> None:
    """Variables that are similar to a setting. Others that begin with MESH_ may belong to other software."""
    variables = set(known)
    for name in sorted(os.environ.keys() - variables):
        close = difflib.get_close_matches(name, variables, n=1, cutoff=0.85) if name.startswith("MESH_") else []
        if close:
            logger.warning("%s is not a setting and has no effect. Did you mean %s?", name, close[0])


def _given(kind: Any) -> Iterator[tuple[str, object]]:
    """The fields of one group that the environment sets."""
    for each in fields(kind):
        variable = variable_of(kind, each.name)
        text = os.environ.get(variable)
        if text is not None:
            yield each.name, _read(variable, text, type(each.default))


def _read(variable: str, text: str, convert: Any) -> object:
    try:
        value = convert(text)
    except ValueError as error:
        raise ValueError(f"{variable}={text!r} is not a valid {convert.__name__}: correct or unset it.") from error
    if convert is not str:
        _check_range(variable, value)
    return value


def _check_range(variable: str, value: float) -> None:
    may_be_zero, most = variable in _MAY_BE_ZERO, _MAXIMUM.get(variable, math.inf)
    # Written so that NaN fails too.
    if not 0 <= value <= most or math.isinf(value) or (value == 0 and not may_be_zero):
        least = "0 or more" if may_be_zero else "more than 0"
        limit = "finite" if math.isinf(most) else f"at most {most}"
        raise ValueError(f"{variable}={value} is out of range: it must be {least}, and {limit}. Correct or unset it.")


def prepare_local_ray() -> None:
    """Environment of a Ray instance that the mesh itself starts; values the user has set stay."""
    os.environ.setdefault("RAY_worker_niceness", settings().process.niceness)


def trace_exporters(default: str = "") -> tuple[str, ...]:
    """What exports spans, as the standard variables of OpenTelemetry say: names of its exporters, empty for none.

    `default` is what counts where `OTEL_TRACES_EXPORTER` is not set.
    """
    if is_tracing_disabled():
        return ()
    names = [name.strip().lower() for name in (os.environ.get("OTEL_TRACES_EXPORTER") or default).split(",")]
    return tuple(_otlp_exporter() if name == "otlp" else name for name in names if name not in ("", "none"))


def is_tracing_disabled() -> bool:
    """Whether the standard variable of OpenTelemetry turns tracing off, whatever options say."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _otlp_exporter() -> str:
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    return "otlp_proto_http" if (protocol or "grpc").strip() == "http/protobuf" else "otlp_proto_grpc"


def ray_address() -> str | None:
    """Address of the Ray cluster the environment names, if any."""
    return os.environ.get("RAY_ADDRESS") or None


def ray_auth_mode() -> str | None:
    """What the environment says about Ray's tokens; None: Ray decides."""
    return os.environ.get("RAY_AUTH_MODE")
