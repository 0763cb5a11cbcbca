"""Settings of the controller, its clients and the logs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


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
    drain_stuck_timeout_s: float = 15.0
    """`mesh drain` gives up waiting when no other node has had room for this long."""
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
    start_timeout_s: float = 300.0
    """A controller that does not serve this long after its start ends, so that Ray starts another one."""
    restart_pause_s: float = 2.0
    """Pause before a controller that failed tries again."""
    hang_timeout_s: float = 60.0
    """A controller whose event loop or control loop hangs for this long ends, so that Ray restarts it; 0: never."""
    nodes_interval_s: float = 1.0
    """Pause between two readings of the node list while something starts or stops."""
    nodes_calm_interval_s: float = 3.0
    """The same while nothing does."""
    nodes_timeout_s: float = 10.0
    """How long one reading of the node list may take."""
    mass_loss_wait_s: float = 30.0
    """Where over a third of the nodes are missing from the node list, how long before that is believed."""
    cordon_memory_s: float = 3600.0
    """How long a cordoned node has to be gone before its cordon is forgotten."""
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
    health_calls_max: int = 1000
    """Health checks of replicas that are under way at the same time."""
    health_jitter_share: float = 0.1
    """Health check periods vary by this share, so that checks do not coincide."""
    departed_memory_s: float = 30.0
    """How long the controller remembers the node that a replica has left."""
    stable_after_s: float = 10.0
    """A replica that ran for this long counts as a success when it ends: its replacement starts without back-off."""
    starts_max: int = 16
    """Replicas that Ray is asked to start at the same time; the others of a mass deploy wait for their turn."""
    adopt_timeout_s: float = 10.0
    """How long a restarted controller waits for the answer of an actor that it finds before it serves without it."""
    adopt_calls_max: int = 500
    """Actors that a restarted controller asks at the same time; thousands at once would wait for each other."""
    late_adopt_calls_max: int = 100
    """The same for actors that did not answer in time and are asked again."""
    oom_lookback_s: float = 60.0
    """A restarted controller reports out-of-memory kills that happened at most this long before its start."""
    events_kept: int = 500
    """The last events of the mesh that are kept, also over restarts of the controller."""
    events_interval_s: float = 5.0
    """Pause between two times at which new events are stored."""
    epoch_interval_s: float = 1.0
    """Pause between two looks whether a newer controller of the mesh has started: then this one ends."""
    orphans_interval_s: float = 10.0
    """Pause between two searches for actors that the controller does not know."""
    orphans_timeout_s: float = 10.0
    """How long one such search may take."""
    unreachable_interval_s: float = 1.0
    """Pause between two attempts to reach an actor that Ray cannot reach."""
    abandon_timeout_s: float = 1.0
    """How long the `__del__` of a replica may take that is killed in its constructor."""
    kill_timeout_s: float = 60.0
    """How long a killed actor may take to disappear before the controller stops waiting for it."""
    release_attempts_max: int = 30
    """Attempts to release a placement group, one a second."""
    canary_open_delay_s: float = 1.0
    """How long callers have to hear of the replicas of a canary before requests are decided for it."""
    flush_timeout_s: float = 0.5
    """How long a draining replica waits for subscribers to learn that it is not listed any more."""
    return_timeout_s: float = 3.0
    """How long a restarted controller drains nothing, so that processes can come back and learn what is not listed; and
    how long the end of a deploy waits for gateways that have not come back."""
    gateway_check_interval_s: float = 10.0
    """Pause between two health checks of a gateway."""
    gateway_check_timeout_s: float = 10.0
    """How long one such check may take."""
    gateway_start_timeout_s: float = 120.0
    """How long a gateway may take to start, its process included."""
    gateway_min_ready_s: float = 3.0
    """How long a gateway with new options has to serve before the one that it replaces ends."""
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
