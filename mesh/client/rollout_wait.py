"""Owns the waiting of API calls for what they asked the controller for, and what they make of failures."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from mesh.client.control_client import ControlClient
from mesh.client.mesh_lifecycle import poll
from mesh.status import (
    ApplicationStatus,
    DeploymentStatus,
    DeploymentStatusTrigger,
    GatewayStatus,
    find_application,
)
from mesh.v1 import control_pb2

logger = logging.getLogger("mesh")

_GATEWAYS_TIMEOUT_S = 60.0
_GATEWAYS_FAILING_TIMEOUT_S = 10.0
_DELETE_TIMEOUT_S = 60.0
_PATIENCE_S = 10.0
_RESIZING = (DeploymentStatus.UPSCALING, DeploymentStatus.DOWNSCALING)

Tell = Callable[[control_pb2.ApplicationStatus], None]


def until_gateways_healthy(client: ControlClient) -> None:
    """At once where gateways are disabled. Raises TimeoutError naming the gateways that are not healthy.

    Gateways may take long to get a process; one that has something to complain of is waited for much shorter.
    """
    started_s = time.monotonic()
    patience = _GatewayPatience(time.monotonic)
    poll(lambda: patience.is_over(client.status()), _GATEWAYS_TIMEOUT_S)
    reply = client.status()
    if _are_healthy(reply):
        return
    states = "; ".join(
        f"node {each.node_id[:8]}: {each.status} {_headline(each.message)}".rstrip() for each in reply.gateways
    )
    raise TimeoutError(
        f"The gateways were not healthy within {time.monotonic() - started_s:.0f} s ({states or 'none was started'}). "
        "If a port is taken, choose another: grpc_options and http_options of mesh.start(), --grpc-port and "
        "--http-port of `mesh run`."
    )


def until_running(client: ControlClient, name: str, tell: Tell | None = None) -> None:
    """Raises RuntimeError when the application failed or was deleted meanwhile. Waits as long as it takes.

    `tell` hears every status on the way; by default a log says now and then why it takes so long.
    """
    tell = tell or Patience(time.monotonic)
    poll(lambda: _is_running(client.status(), name, tell), timeout_s=None)


def until_all_running(client: ControlClient, names: Sequence[str], tell: Tell) -> None:
    """`until_running` of several, and until they have as many replicas as asked for.

    Raises RuntimeError with all failures, when what has not failed runs.
    """
    failures: dict[str, str] = {}
    poll(lambda: _are_settled(client.status(), names, tell, failures), timeout_s=None)
    if failures:
        raise RuntimeError("\n".join(failures[name] for name in names if name in failures))


def until_deleted(client: ControlClient, name: str) -> None:
    """Returns also when somebody has deployed it again meanwhile. Raises TimeoutError."""
    if not poll(lambda: not _is_being_deleted(client.status(), name), _DELETE_TIMEOUT_S):
        raise TimeoutError(
            f"Application {name!r} was not gone after {_DELETE_TIMEOUT_S:.0f} s; it is still being deleted. "
            "See `mesh status` for the replicas that are left."
        )


def _is_being_deleted(reply: control_pb2.StatusReply, name: str) -> bool:
    application = find_application(reply, name)
    return application is not None and application.status == ApplicationStatus.DELETING


class _GatewayPatience:
    """Tells when waiting for gateways is over: they are healthy, or the same trouble has lasted for some seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._trouble: set[str] = set()
        self._since_s = clock()

    def is_over(self, reply: control_pb2.StatusReply) -> bool:
        trouble = {_headline(gateway.message) for gateway in reply.gateways if gateway.message}
        if trouble != self._trouble:
            self._trouble, self._since_s = trouble, self._clock()
        is_stuck = bool(trouble) and self._clock() - self._since_s >= _GATEWAYS_FAILING_TIMEOUT_S
        return is_stuck or _are_healthy(reply)


class Patience:
    """Logs why a rollout is still not through, every ten seconds of waiting."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started_s = clock()
        self._next_s = self._started_s + _PATIENCE_S

    def __call__(self, application: control_pb2.ApplicationStatus) -> None:
        now_s = self._clock()
        if now_s < self._next_s:
            return
        self._next_s = now_s + _PATIENCE_S
        # Lines of tracebacks are indented.
        told = [line for line in application.message.splitlines() if not line.startswith(" ")]
        message = "; ".join(told) or "its replicas are starting"
        waited_s = now_s - self._started_s
        logger.warning("application %r is %s for %.0f s: %s", application.name, application.status, waited_s, message)


def _are_healthy(reply: control_pb2.StatusReply) -> bool:
    if reply.gateway_options.location == control_pb2.GATEWAY_LOCATION_DISABLED:
        return True
    states = [gateway.status for gateway in reply.gateways]
    return bool(states) and all(state == GatewayStatus.HEALTHY for state in states)


def _headline(message: str) -> str:
    return message.partition("\n")[0]


def _is_running(reply: control_pb2.StatusReply, name: str, tell: Tell) -> bool:
    application = find_application(reply, name)
    if application is None or application.status == ApplicationStatus.DELETING:
        raise RuntimeError(f"Application {name!r} was deleted while it was being deployed.")
    tell(application)
    if application.status == ApplicationStatus.DEPLOY_FAILED:
        raise RuntimeError(f"Deploying application {name!r} failed: {application.message}")
    return application.status == ApplicationStatus.RUNNING


def _are_settled(reply: control_pb2.StatusReply, names: Sequence[str], tell: Tell, failures: dict[str, str]) -> bool:
    """Each runs, or is now in `failures` with the reason why not."""
    running = []
    for name in names:
        try:
            running.append(_is_running(reply, name, tell) and not _is_resizing(find_application(reply, name)))
            failures.pop(name, None)
        except RuntimeError as error:
            failures[name] = str(error)
            running.append(True)
    return all(running)


def _is_resizing(application: control_pb2.ApplicationStatus | None) -> bool:
    """Another number of replicas was asked for: the application runs all the while, but is not yet as asked."""
    return application is not None and any(
        each.status in _RESIZING and each.trigger == DeploymentStatusTrigger.CONFIG_UPDATE_STARTED
        for each in application.deployments
    )
