"""The process-wide settings, in groups; the only module that reads the environment.

Every field can be set by an environment variable: `MESH_`, the prefix of its group and the field's name in capitals,
for instance `MESH_GATEWAY_LAME_DUCK_S=0` or `MESH_STREAM_CREDITS=64`. They are read once per process.
"""

from __future__ import annotations

import difflib
import logging
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar

# gRPC reads this when it is imported; `mesh/__init__.py` imports this module before. From grpcio 1.80 on, its fork
# handlers crash processes that are forked while it is in use, such as the workers of a PyTorch DataLoader.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

logger = logging.getLogger("mesh")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSettings:
    """Connections between callers and replicas."""

    PREFIX: ClassVar[str] = "LINK_"

    batch_max_bytes: int = 256 * 1024
    """Small frames are coalesced into gRPC messages of at most about this size."""
    connect_timeout_s: float = 5.0
    """A replica that does not answer Hello within this time counts as unreachable."""
    reconnect_delay_min_s: float = 0.02
    """First pause between two attempts to reach a replica that is still listed; it doubles with each attempt."""
    reconnect_delay_max_s: float = 1.0
    """Upper bound of that pause."""
    tls_certfile: str = ""
    """PEM file, on every node, with the certificate of each process; empty: no TLS. `mesh certs --links` makes one."""
    tls_keyfile: str = ""
    """PEM file with its private key, which is not encrypted."""
    tls_ca_certs: str = ""
    """PEM file with the mesh's own authority: a certificate that it signed is accepted from any process."""
    tls_server_name: str = "mesh.internal"
    """DNS name that the certificates are made out to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadSettings:
    """Messages and their size."""

    PREFIX: ClassVar[str] = ""

    stream_credits: int = 128
    """Items a producer may be ahead of its consumer on one streaming call; one of 64 KiB or more counts as several."""
    part_bytes: int = 512 * 1024
    """Messages above this size cross a link in parts of this size, so that other calls pass between them."""
    message_max_bytes: int = 2**31 - 1
    """Largest argument, result or stream item that crosses a link; what goes through the object store may be larger."""
    object_store_min_bytes: int = 1024 * 1024
    """Payloads with out-of-band buffers of at least this size go through the node's object store; 0 turns it off."""
    object_fetch_timeout_s: float = 300.0
    """How long a payload may take through the object store before it counts as lost."""
    object_fetch_threads: int = 32
    """Payloads that a process fetches from the object store at the same time; one that is lost takes one place."""
    freed_bytes_kept: int = 64 * 1024 * 1024
    """Freed memory that a thread of a replica or gateway keeps for its next large message; 0: as the C library does."""
    error_details_max_chars: int = 4096
    """Error messages are cut to this length before they become gRPC status details."""
    descriptors_max_bytes: int = 4 * 1024 * 1024
    """Descriptors of the gRPC services of one application, with all that their `.proto` files import."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingSettings:
    """The choice of a replica, and retries."""

    PREFIX: ClassVar[str] = ""

    retry_attempts_max: int = 16
    """A call that replicas refuse because they drain, or that breaks before it ran, is tried this often."""
    load_half_life_s: float = 0.1
    """What a caller knows of other callers' load at a replica is halved after this time without a new report."""
    ejection_failure_share: float = 0.3
    """A replica is left out when its share of failed calls is this far above the mean of the others."""
    ejection_min_s: float = 2.0
    """How long it is left out; doubles each time that it fails again."""
    ejection_max_s: float = 60.0
    """Upper bound of that time."""
    slow_start_s: float = 5.0
    """How long the share of a replica grows that is new or was left out."""
    multiplex_spill_delay_s: float = 0.05
    """How long a call waits for a replica that holds its model before another free one takes it."""
    router_linger_s: float = 10.0
    """Minimum life of a deleted deployment's router, so that repeated calls do not query the controller each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """What every process of the mesh has: threads, ports and its Sync stream to the controller."""

    PREFIX: ClassVar[str] = ""

    gc_threshold: int = 10_000
    """Container objects allocated in a replica or gateway before its youngest generation is collected."""
    gil_switch_interval_s: float = 0.0003
    """How long a thread of a replica or gateway may keep the interpreter while its I/O thread waits for it."""
    niceness: str = "0"
    """`RAY_worker_niceness` for a Ray that the mesh starts itself."""
    server_host: str = ""
    """Interface on which replicas, the controller and all other processes listen; empty: the address of their node."""
    scrape_timeout_s: float = 1.0
    """How long a scrape of a gateway waits for each other process of its node."""
    control_timeout_s: float = 30.0
    """How long an API call waits for a controller that is starting or restarting."""
    sync_report_interval_s: float = 1.0
    """Maximum time between two reports of a process that has something to report to the controller."""
    sync_reconnect_delay_min_s: float = 0.05
    """First pause before a process connects to the controller again; it doubles with each attempt."""
    sync_reconnect_delay_max_s: float = 1.0
    """Upper bound of that pause."""
    membership_timeout_s: float = 5.0
    """How long a process may take to join the mesh, and to leave it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSettings:
    """The life of a replica."""

    PREFIX: ClassVar[str] = "REPLICA_"

    drain_acknowledge_timeout_s: float = 1.0
    """How long a drained replica waits for callers to acknowledge its Drain; they normally do so immediately."""
    close_grace_s: float = 0.5
    """How long the server of a stopped replica waits for streams to end before it breaks them."""
    autoscaling_stats_timeout_s: float = 10.0
    """How long the user's `record_autoscaling_stats` may take."""
    websocket_grace_s: float = 5.0
    """How long the code of a WebSocket may go on after its client has left before it is cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """Logs of replicas, gateways and the controller."""

    PREFIX: ClassVar[str] = "LOG_"

    file_max_bytes: int = 10 * 1024 * 1024
    """Size at which the log file of a process is renamed and a new one begins."""
    files_per_process: int = 5
    """Log files that a process keeps; the oldest is deleted."""
    node_max_bytes: int = 1024 * 1024 * 1024
    """Size of all log files of a node above which a starting process deletes the oldest ones."""
    node_files_max: int = 2000
    """Number of log files of a node above which a starting process deletes the oldest ones."""
    failures_max: int = 10
    """Failed calls of one method and type of exception that a replica logs in ten seconds; it counts the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """Gateways."""

    PREFIX: ClassVar[str] = "GATEWAY_"

    host: str = "0.0.0.0"
    """Interface on which gateways listen unless options say otherwise."""
    lame_duck_s: float = 1.0
    """From reporting NOT_SERVING to closing the port: the time that balancers have to notice."""
    drain_timeout_s: float = 30.0
    """How long a draining gateway waits for its calls before it ends them."""
    stop_grace_s: float = 0.5
    """How long a stopped gateway lets open calls finish before it breaks them."""
    metadata_max_bytes: int = 16 * 1024
    """Metadata of one gRPC call, or header fields of one HTTP request, that a gateway accepts."""
    streams_max: int = 10_000
    """Concurrent gRPC calls on one client connection; more wait in the client."""
    connections_max: int = 10_000
    """Client connections; more are closed at once, with GOAWAY or status 503."""
    buffer_max_bytes: int = 1024 * 1024 * 1024
    """Bytes of messages that wait in a gateway, requests and responses; what is above ends with RESOURCE_EXHAUSTED."""
    files_interval_s: float = 5.0
    """Pause between two looks at the files of certificates, keys and tokens."""
    limited_callers_max: int = 10_000
    """Identities and addresses that a gateway counts for limits; further ones share a count while all are busy."""
    http_body_timeout_s: float = 60.0
    """How long a client of HTTP/1.1 may pause in the middle of a request's body."""
    http_body_max_bytes: int = 2 * 1024 * 1024 * 1024
    """Body of one web request; a longer one is refused with 413. Bodies pass through in pieces and are not kept."""
    json_max_bytes: int = 16 * 1024 * 1024
    """Body of one JSON request of a typed method, decompressed; a longer one is refused with 413."""
    websocket_message_max_bytes: int = 16 * 1024 * 1024
    """One message from the client of a WebSocket, decompressed; a longer one closes it with 1009."""
    websocket_ping_interval_s: float = 20.0
    """A WebSocket whose client has sent nothing for this long gets a ping."""
    websocket_ping_timeout_s: float = 20.0
    """A client that sends nothing for this long after a ping is gone."""
    websocket_close_timeout_s: float = 10.0
    """How long the other side may take once one side has closed a WebSocket: the client to answer, the application to
    end."""
    metric_routes_max: int = 200
    """Route patterns of an application that have metric series of their own; the rest counts as one."""
    deleted_applications_kept: int = 32
    """Deleted applications that keep metric series of their own; older ones are added up as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """What API calls and the `mesh` command wait for."""

    PREFIX: ClassVar[str] = "CLIENT_"

    start_timeout_s: float = 60.0
    """How long the controller may take to become ready when the mesh starts."""
    start_failing_timeout_s: float = 8.0
    """The same while the controller fails to start again and again."""
    gateways_timeout_s: float = 60.0
    """How long gateways may take to become healthy when the mesh starts."""
    gateways_failing_timeout_s: float = 10.0
    """The same while a gateway fails to start again and again."""
    shutdown_timeout_s: float = 30.0
    """How long a shutdown waits for replicas to drain before it kills what is left."""
    kill_timeout_s: float = 10.0
    """How long a killed actor may take to disappear."""
    logs_timeout_s: float = 30.0
    """How long a node may take to read its log files; the first time includes starting a process there."""
    delete_timeout_s: float = 60.0
    """How long `mesh.delete` waits for replicas to be gone."""
    progress_interval_s: float = 10.0
    """Pause between two lines that say what a waiting API call waits for."""
    import_timeout_s: float = 600.0
    """How long an import in a runtime environment may take, which includes installing its packages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSettings:
    """The control loop. Read in the controller."""

    PREFIX: ClassVar[str] = "CONTROLLER_"

    turn_interval_s: float = 1.0
    """Maximum pause between two turns of the control loop."""
    store_timeout_s: float = 1.0
    """How long a turn waits for the cluster's key-value store before the loop goes on without it."""
    restart_pause_s: float = 2.0
    """Pause before a controller that failed tries again."""
    nodes_interval_s: float = 1.0
    """Pause between two readings of the node list while something starts or stops."""
    nodes_calm_interval_s: float = 3.0
    """The same while nothing does."""
    nodes_timeout_s: float = 10.0
    """How long one reading of the node list may take."""
    mass_loss_wait_s: float = 30.0
    """Where over a third of the nodes are missing from the node list, how long before that is believed."""
    surge_share: float = 0.2
    """Extra replicas of a deployment allowed during an update, as a share of its target; at least one."""
    min_ready_s: float = 10.0
    """How long a replica of a new version has to serve before it replaces an old one, unless the deployment says so."""
    retire_delay_s: float = 5.0
    """How long deployments that only the version before had serve on when callers are sent to the new ones."""
    failures_per_replica: int = 3
    """A version that has never run is given up after this many failed starts per wanted replica."""
    failures_max: int = 20
    """Upper bound of that number."""
    drain_margin_s: float = 5.0
    """Added to a graceful shutdown timeout before the replica or gateway is killed, or has to leave its node."""
    start_patience_s: float = 10.0
    """A replica that has been starting for longer is mentioned in the status."""
    assign_timeout_s: float = 10.0
    """A replica without a process this long after it was assigned a node is assigned again."""
    unschedulable_after_s: float = 30.0
    """A replica without a process for this long counts as unschedulable."""
    environment_timeout_s: float = 600.0
    """Replaces both for a replica whose runtime environment Ray has to create first."""
    resources_lag_s: float = 2.0
    """Maximum age of Ray's report of free resources."""
    health_failures_max: int = 3
    """Health checks that must fail in a row before a replica or gateway is replaced."""
    health_jitter_share: float = 0.1
    """Health check periods vary by this share, so that checks do not coincide."""
    departed_memory_s: float = 30.0
    """How long the controller remembers the node that a replica has left."""
    stable_after_s: float = 10.0
    """A replica that ran for this long counts as a success when it ends: its replacement starts without back-off."""
    adopt_timeout_s: float = 10.0
    """How long a restarted controller waits for the answer of an actor that it finds before it serves without it."""
    oom_lookback_s: float = 60.0
    """A restarted controller reports out-of-memory kills that happened at most this long before its start."""
    orphans_interval_s: float = 10.0
    """Pause between two searches for actors that the controller does not know."""
    orphans_timeout_s: float = 10.0
    """How long one such search may take."""
    unreachable_interval_s: float = 1.0
    """Pause between two attempts to reach an actor that Ray cannot reach."""
    kill_timeout_s: float = 60.0
    """How long a killed actor may take to disappear before the controller stops waiting for it."""
    release_attempts_max: int = 30
    """Attempts to release a placement group, one a second."""
    flush_timeout_s: float = 0.5
    """How long a draining replica waits for subscribers to learn that it is not listed any more."""
    gateway_check_interval_s: float = 10.0
    """Pause between two health checks of a gateway."""
    gateway_check_timeout_s: float = 10.0
    """How long one such check may take."""
    gateway_start_timeout_s: float = 120.0
    """How long a gateway may take to start, its process included."""
    gateway_linger_s: float = 30.0
    """A gateway stays this long on a node that has lost its last replica."""
    load_interval_s: float = 5.0
    """How often callers report the load of a deployment that does not autoscale, for the status."""
    load_expiry_min_s: float = 10.0
    """A load report is ignored when it is older than this or than two report intervals, whichever is longer."""
    policy_start_timeout_s: float = 600.0
    """How long the process of a user's autoscaling policy may take to start, its runtime environment included."""
    policy_stable_after_s: float = 60.0
    """A policy's process that ends sooner makes the next one wait longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    link: LinkSettings = LinkSettings()
    payload: PayloadSettings = PayloadSettings()
    routing: RoutingSettings = RoutingSettings()
    process: ProcessSettings = ProcessSettings()
    replica: ReplicaSettings = ReplicaSettings()
    logs: LogSettings = LogSettings()
    gateway: GatewaySettings = GatewaySettings()
    client: ClientSettings = ClientSettings()
    controller: ControllerSettings = ControllerSettings()


_MAY_BE_ZERO = """
    CONTROLLER_HEALTH_JITTER_SHARE CONTROLLER_MIN_READY_S ERROR_DETAILS_MAX_CHARS FREED_BYTES_KEPT
    GATEWAY_DELETED_APPLICATIONS_KEPT GATEWAY_DRAIN_TIMEOUT_S GATEWAY_LAME_DUCK_S GC_THRESHOLD
    LINK_RECONNECT_DELAY_MAX_S MULTIPLEX_SPILL_DELAY_S OBJECT_STORE_MIN_BYTES ROUTER_LINGER_S SLOW_START_S
""".split()
"""The other numbers must be more than 0: without credit, time or room nothing would ever move."""

_MAXIMUM = {"MESH_LINK_BATCH_MAX_BYTES": 32 * 1024 * 1024, "MESH_PART_BYTES": 32 * 1024 * 1024}
"""Replicas break a link that carries a message of more than 64 MiB."""


@cache
def settings() -> Settings:
    """Settings of this process: defaults overridden by the environment. Raises ValueError naming a bad variable."""
    groups: dict[str, Any] = {each.name: type(each.default) for each in fields(Settings)}
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
            logger.warning("%s is no setting and has no effect. Did you mean %s?", name, close[0])


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
    may_be_zero, most = variable.removeprefix("MESH_") in _MAY_BE_ZERO, _MAXIMUM.get(variable, math.inf)
    # Written so that NaN fails too.
    if not 0 <= value <= most or math.isinf(value) or (value == 0 and not may_be_zero):
        least = "0 or more" if may_be_zero else "more than 0"
        limit = "finite" if math.isinf(most) else f"at most {most}"
        raise ValueError(f"{variable}={value} is out of range: it must be {least}, and {limit}. Correct or unset it.")


def prepare_local_ray() -> None:
    """Environment of a Ray instance that the mesh itself starts; values the user has set stay."""
    os.environ.setdefault("RAY_worker_niceness", settings().process.niceness)


def ray_address() -> str | None:
    """Address of the Ray cluster the environment names, if any."""
    return os.environ.get("RAY_ADDRESS")
