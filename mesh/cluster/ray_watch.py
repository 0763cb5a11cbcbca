"""Whether the Ray of this process has ended, seen at the sockets of its daemons.

Calls into Ray do not tell: they wait up to 60 s for a cluster that is gone, not even a signal interrupts them, and then
Ray ends the process.
"""

from __future__ import annotations

import socket
from typing import Any

import ray
from ray._private import ray_constants

_CONNECT_TIMEOUT_S = 1.0
"""How long the TCP connection to Ray may take."""
_SILENT_CHECKS_MAX = 3


def owns_ray() -> bool:
    """Whether this process has started the Ray that it uses, so that Ray ends with it."""
    node = ray._private.worker._global_node
    return node is not None and bool(node.is_head())


class RayWatch:
    """Looks at the raylet of this node, without which no process of the node can go on, and at the cluster's GCS.

    A process that uses Ray Client has neither; its Ray never counts as ended.
    """

    def __init__(self) -> None:
        self._node = node = ray._private.worker._global_node
        self._raylet = None if node is None else _connected(node.raylet_socket_name)
        self._silent_checks = 0

    def has_ended(self, *, needs_gcs: bool) -> bool:
        """Call it about twice a second; it blocks for at most one.

        `needs_gcs`: a GCS that is silent several times in a row counts as ended. Otherwise only one that this process
        has started does, because others may be restarted by their cluster.
        """
        if self._node is None:
            return False
        if self._raylet is not None and _is_closed(self._raylet):
            self._raylet.close()
            self._raylet = _connected(self._node.raylet_socket_name)
        if self._raylet is None or _has_dead_gcs(self._node):
            return True
        is_silent = needs_gcs and _is_silent(_address(self._node.gcs_address))
        self._silent_checks = self._silent_checks + 1 if is_silent else 0
        return self._silent_checks >= _SILENT_CHECKS_MAX


def _connected(path: str) -> socket.socket | None:
    """A connection to the raylet, on which nothing is sent. It ends with the raylet, also when that is killed."""
    raylet = socket.socket(socket.AF_UNIX)
    try:
        raylet.connect(path)
    except OSError:
        raylet.close()
        return None
    raylet.setblocking(False)
    return raylet


def _is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _has_dead_gcs(node: Any) -> bool:
    """False for a GCS that another process has started."""
    return any(kind == ray_constants.PROCESS_TYPE_GCS_SERVER for kind, _ in node.dead_processes())


def _address(host_and_port: str) -> tuple[str, int]:
    host, _, port = host_and_port.rpartition(":")
    return host.strip("[]"), int(port)


def _is_silent(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, _CONNECT_TIMEOUT_S).close()
    except OSError:
        return True
    return False
