"""Settings of calls: links, payloads, routing, and the processes that make and serve them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


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
    offer_timeout_s: float = 1.0
    """A caller that leaves the offer of a free place unanswered for this long, or up to twice, loses it to the next."""
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
    request_stream_threads_max: int = 256
    """Generators that handle calls of one process stream at the same time, each in a thread; async ones need none."""
    object_store_min_bytes: int = 8 * 1024 * 1024
    """Payloads with out-of-band buffers of at least this size go through the node's object store; 0 turns it off."""
    object_fetch_timeout_s: float = 300.0
    """How long a payload may take through the object store before it counts as lost."""
    object_fetch_threads: int = 32
    """Payloads that a process fetches from the object store at the same time; a lost one keeps its thread for long."""
    freed_bytes_kept: int = 64 * 1024 * 1024
    """Freed memory that a process keeps for its next large messages, and each thread of it as much; 0: none."""
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
    queue_warning_s: float = 20.0
    """Calls that wait this long for a place are logged by their caller, and again as often while they wait."""
    request_router_timeout_s: float = 1.0
    """How long a deployment's own request router may take for one call; then the usual rules apply to that."""
    request_router_open_max: int = 4096
    """Calls that a deployment's own request router may rank at once, per process; above, the usual rules apply."""
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
    user_metric_series_max: int = 10_000
    """Series that `mesh.metrics` keeps in one process; further ones are not counted."""
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
    trace_flush_timeout_s: float = 2.0
    """How long a replica or gateway that ends may take to export its last spans."""
    force_local_testing_mode: int = 0
    """1: every `mesh.run` of this process is a local test, as with `_local_testing_mode=True`."""


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
    abandoned_load_timeout_s: float = 60.0
    """How long the load of a multiplexed model goes on when no call waits for it any more; then it is cancelled."""
    inference_body_max_bytes: int = 256 * 1024 * 1024
    """Body of one REST request for inference, also once it is decompressed: a replica needs it whole."""
