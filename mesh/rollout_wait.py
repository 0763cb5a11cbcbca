"""Owns the waiting of API calls for what they asked the controller for, and what they make of failures."""

from __future__ import annotations

import logging
import time

from mesh.control_client import ControlClient
from mesh.control_plane import poll
from mesh.status import ApplicationStatus, GatewayStatus
from mesh.v1 import control_pb2

logger = logging.getLogger("mesh")

_GATEWAYS_TIMEOUT_S = 60.0
_DELETE_TIMEOUT_S = 60.0
_PATIENCE_S = 10.0


def until_gateways_healthy(client: ControlClient) -> None:
    """Raises TimeoutError naming the gateways that are not."""
    if poll(lambda: _are_healthy(client.status()), _GATEWAYS_TIMEOUT_S):
        return
    gateways = client.status().gateways
    states = "; ".join(f"node {each.node_id[:8]}: {each.status} {each.message}".rstrip() for each in gateways)
    raise TimeoutError(
        f"The gateways were not healthy within {_GATEWAYS_TIMEOUT_S:.0f} s ({states or 'none was started'}). "
        "Is a port taken? Choose others with grpc_options and http_options, or proxy_location='Disabled'."
    )


def until_running(client: ControlClient, name: str) -> None:
    """Raises RuntimeError when the application failed or was deleted meanwhile. Waits as long as it takes."""
    report = _Patience(name)
    while not poll(lambda: _is_running(_application(client.status(), name), name), _PATIENCE_S):
        report.tell(_application(client.status(), name))


def until_deleted(client: ControlClient, name: str) -> None:
    """Raises TimeoutError."""
    if not poll(lambda: _application(client.status(), name) is None, _DELETE_TIMEOUT_S):
        raise TimeoutError(
            f"Application {name!r} was not gone after {_DELETE_TIMEOUT_S:.0f} s; it is still being deleted. "
            "See `mesh status` for the replicas that are left."
        )


class _Patience:
    """Says now and then why a rollout is still not through."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._started_s = time.monotonic()

    def tell(self, application: control_pb2.ApplicationStatus | None) -> None:
        if application is not None:
            waited_s = time.monotonic() - self._started_s
            message = application.message or "its replicas are starting"
            logger.warning("application %r is %s for %.0f s: %s", self._name, application.status, waited_s, message)


def _are_healthy(reply: control_pb2.StatusReply) -> bool:
    states = [gateway.status for gateway in reply.gateways]
    return bool(states) and all(state == GatewayStatus.HEALTHY for state in states)


def _application(reply: control_pb2.StatusReply, name: str) -> control_pb2.ApplicationStatus | None:
    return next((application for application in reply.applications if application.name == name), None)


def _is_running(application: control_pb2.ApplicationStatus | None, name: str) -> bool:
    if application is None or application.status == ApplicationStatus.DELETING:
        raise RuntimeError(f"Application {name!r} was deleted while it was being deployed.")
    if application.status == ApplicationStatus.DEPLOY_FAILED:
        raise RuntimeError(f"Deploying application {name!r} failed: {application.message}")
    return application.status == ApplicationStatus.RUNNING
