"""Owns the process-wide settings and is the only module that reads the environment.

Every field can be set by an environment variable: `MESH_` and the field's name in capitals, for instance
`MESH_STREAM_CREDITS=64`.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields
from functools import cache
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    link_batch_max_bytes: int = 256 * 1024
    """Small frames are coalesced into gRPC messages of at most about this size."""

    link_hold_s: float = 0.001
    """How long a link with 32 or more calls under way may hold back a small batch for more frames to join it."""

    link_connect_timeout_s: float = 5.0
    """A replica that does not answer Hello within this time counts as unreachable."""

    link_reconnect_delay_max_s: float = 1.0
    """Upper bound of the doubling pause between two attempts to reach a replica that is still listed."""

    stream_credits: int = 128
    """Items a producer may be ahead of its consumer on one streaming call; one of 64 KiB or more counts as several."""

    part_bytes: int = 512 * 1024
    """Messages above this size cross a link in parts of this size, so that other calls pass between them."""

    object_store_min_bytes: int = 1024 * 1024
    """Payloads with out-of-band buffers of at least this size go through the node's object store; 0 turns it off."""

    object_fetch_timeout_s: float = 300.0
    """How long a payload may take through the object store before it counts as lost."""

    message_max_bytes: int = 2**31 - 1
    """Largest argument, result or stream item that crosses a link; what goes through the object store may be larger."""

    multiplex_spill_delay_s: float = 0.05
    """How long a call waits for a replica that holds its model before another free one takes it."""

    retry_attempts_max: int = 16
    """A call that replicas keep refusing because they drain or break before it ran is tried this often."""

    gc_threshold: int = 10_000
    """Container objects allocated in a replica or gateway before its youngest generation is collected."""

    gil_switch_interval_s: float = 0.0003
    """How long a thread of a replica or gateway may keep the interpreter while its I/O thread waits for it."""

    server_host: str = "0.0.0.0"
    """Interface on which replicas and the controller listen."""

    gateway_host: str = "0.0.0.0"
    """Interface on which gateways listen unless options say otherwise."""

    gateway_drain_timeout_s: float = 30.0
    """How long a draining gateway waits for its calls before it ends them."""

    gateway_metadata_max_bytes: int = 16 * 1024
    """Metadata of one gRPC call that a gateway accepts."""

    gateway_streams_max: int = 10_000
    """Concurrent gRPC calls on one client connection; more wait in the client."""

    scrape_timeout_s: float = 1.0
    """How long a scrape of a gateway waits for each other process of its node."""

    control_timeout_s: float = 30.0
    """How long an API call waits for a controller that is starting or restarting."""

    sync_report_interval_s: float = 1.0
    """How often a process looks, at least, whether it has something to tell the controller."""

    error_details_max_chars: int = 4096
    """Error messages are cut to this length before they become gRPC status details."""

    niceness: str = "0"
    """`RAY_worker_niceness` for a Ray that the mesh starts itself."""


_LEAST_IS_ZERO = {
    "error_details_max_chars",
    "gateway_drain_timeout_s",
    "gc_threshold",
    "link_hold_s",
    "link_reconnect_delay_max_s",
    "multiplex_spill_delay_s",
    "object_store_min_bytes",
}
"""The other numbers must be more than 0: without credit, time or room nothing would ever move."""
_MOST = {"link_batch_max_bytes": 32 * 1024 * 1024, "part_bytes": 32 * 1024 * 1024}
"""Replicas break a link on which a message of more than 64 MiB comes, whoever sends it."""


@cache
def settings() -> Settings:
    """Settings of this process: defaults overridden by the environment. Raises ValueError naming a bad variable."""
    values: dict[str, object] = {}
    for field in fields(Settings):
        variable = f"MESH_{field.name.upper()}"
        text = os.environ.get(variable)
        if text is None:
            continue
        convert: type[Any] = type(field.default)
        try:
            values[field.name] = value = convert(text)
        except ValueError as error:
            raise ValueError(f"{variable}={text!r} is not a valid {convert.__name__}: correct or unset it.") from error
        if convert is not str:
            most = _MOST.get(field.name, math.inf)
            _check_range(variable, value, least_is_zero=field.name in _LEAST_IS_ZERO, most=most)
    return Settings(**values)  # type: ignore[arg-type]


def _check_range(variable: str, value: float, *, least_is_zero: bool, most: float) -> None:
    # Written so that NaN fails too.
    if not 0 <= value <= most or math.isinf(value) or (value == 0 and not least_is_zero):
        least = "0 or more" if least_is_zero else "more than 0"
        limit = "finite" if math.isinf(most) else f"at most {most}"
        raise ValueError(f"{variable}={value} is out of range: it must be {least}, and {limit}. Correct or unset it.")


def prepare_local_ray() -> None:
    """Environment of a Ray instance that the mesh itself starts; values the user has set stay."""
    os.environ.setdefault("RAY_worker_niceness", settings().niceness)


def ray_address() -> str | None:
    """Address of the Ray cluster the environment names, if any."""
    return os.environ.get("RAY_ADDRESS")
