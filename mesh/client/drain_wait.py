"""The wait for a node that is being drained, and the errors that end it early."""

from __future__ import annotations

import time
from collections.abc import Callable

from mesh.client.control_client import ControlClient
from mesh.client.polling import poll
from mesh.settings import settings
from mesh.status import NodeStatus
from mesh.v1 import control_pb2

Show = Callable[[control_pb2.NodeStatus], object]


class NotDrainedError(RuntimeError):
    """The wait is over, and the drain goes on."""


def until_drained(client: ControlClient, node_id: str, show: Show, timeout_s: float | None) -> None:
    """Until its replicas have moved and its gateways have ended. `show` gets its status at each change.

    Raises NotDrainedError when that takes too long or replicas do not find room, RuntimeError when the drain has ended.
    """
    wait = DrainWait(time.monotonic, show)
    if not poll(lambda: wait.is_over(_node(client.status(), node_id)), timeout_s):
        raise NotDrainedError(f"Node {node_id[:8]} is not drained after {timeout_s:g} s: {wait.progress}.")


class DrainWait:
    """Decides when the wait is over."""

    def __init__(self, clock: Callable[[], float], show: Show) -> None:
        self._clock = clock
        self._show = show
        self._shown = control_pb2.NodeStatus()
        self._stuck_since_at_s: float | None = None
        """Since when something keeps the replicas from moving, and none has moved."""

    @property
    def progress(self) -> str:
        return progress_text(self._shown)

    def is_over(self, status: control_pb2.NodeStatus | None) -> bool:
        """`status`: that of now; None: the node is not there any more. Raises as `until_drained` does."""
        if status is None:
            raise RuntimeError(
                f"The node has left the cluster before it was drained: {self.progress}. Others replace its replicas."
            )
        now_s = self._clock()
        if not status.message:
            self._stuck_since_at_s = None
        elif self._stuck_since_at_s is None or status.moved_replicas != self._shown.moved_replicas:
            self._stuck_since_at_s = now_s
        if status != self._shown:
            self._shown.CopyFrom(status)
            self._show(status)
        if status.status in (NodeStatus.READY, NodeStatus.CORDONED):
            raise RuntimeError(f"The drain of node {status.node_id[:8]} was called off: {self.progress}.")
        timeout_s = settings().client.drain_stuck_timeout_s
        if self._stuck_since_at_s is not None and now_s - self._stuck_since_at_s >= timeout_s:
            raise NotDrainedError(f"Node {status.node_id[:8]} is not drained: {self.progress}. {status.message}")
        return status.status == NodeStatus.DRAINED


def progress_text(status: control_pb2.NodeStatus) -> str:
    """For people: "2 of 5 replicas moved"."""
    return f"{status.moved_replicas} of {status.replicas_to_move} replicas moved"


def _node(reply: control_pb2.StatusReply, node_id: str) -> control_pb2.NodeStatus | None:
    return next((each for each in reply.nodes if each.node_id == node_id), None)
