"""How long a rollout waits: for a new replica to prove itself, and for user code that may hang."""

from __future__ import annotations

import math

from mesh.settings import settings
from mesh.v1 import control_pb2


def min_ready_s_of(options: control_pb2.DeploymentOptions) -> float:
    """In seconds; that of the mesh where the deployment does not say."""
    return options.min_ready_s if options.HasField("min_ready_s") else settings().controller.min_ready_s


def stable_after_s(options: control_pb2.DeploymentOptions) -> float:
    """A replica that ends sooner after its start, or after a new configuration, counts as failed by that."""
    return max(settings().controller.stable_after_s, min_ready_s_of(options))


def progress_deadline_s_of(options: control_pb2.DeploymentOptions) -> float:
    """In seconds; infinite where the deployment does not say."""
    return options.progress_deadline_s if options.HasField("progress_deadline_s") else math.inf
