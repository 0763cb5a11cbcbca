"""The number of replicas that a deployment begins with when it is deployed (item 234). Pure."""

from __future__ import annotations

from mesh.v1 import control_pb2


def replicas_at_deploy(before: control_pb2.DeploymentOptions | None, after: control_pb2.DeploymentOptions) -> int:
    """The number of replicas of a deployment that is deployed with the options `after` (item 234)."""
    if not after.HasField("autoscaling"):
        return after.num_replicas
    options = after.autoscaling
    is_other = before is None or _apart_from_number(before) != _apart_from_number(after)
    if options.HasField("initial_replicas") and is_other:
        return options.initial_replicas
    if before is None:
        return options.min_replicas
    return min(max(before.num_replicas, options.min_replicas), options.max_replicas)


def _apart_from_number(options: control_pb2.DeploymentOptions) -> control_pb2.DeploymentOptions:
    rest = control_pb2.DeploymentOptions()
    rest.CopyFrom(options)
    rest.ClearField("num_replicas")
    return rest
