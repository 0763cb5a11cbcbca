"""Cordons: nodes that take no new replicas, and those whose replicas are to move. Pure.

Theory of operation. A cordon is stored with the desired state. `with_cordons` adds it to what is observed, before
anything is planned: a node with a cordon gets no replica. A node that is drained looks to the planners like one that
Ray drains, but never ends: its replicas stop only when others serve in their place (mesh/controller/plan/rollout.py),
and its gateways when no replica is left there (mesh/controller/plan/gateway_plan.py).

A node that joins again after a restart of Ray has another id, and no cordon.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from mesh.controller.desired.changes.state_edits import keep_only, next_version
from mesh.controller.desired.desired_state import Desired
from mesh.controller.plan.cluster_picture import Node, Observed
from mesh.v1 import control_pb2

_AUTHOR_MAX_CHARS = 100


def with_cordons(nodes: Iterable[Node], cordons: Mapping[str, control_pb2.Cordon]) -> list[Node]:
    """The nodes as the planners are to see them."""
    return [_marked(node, cordons[node.node_id]) if node.node_id in cordons else node for node in nodes]


def _marked(node: Node, cordon: control_pb2.Cordon) -> Node:
    if not cordon.is_draining or node.ends_at_s is not None:
        # One that Ray drains has to hurry.
        return replace(node, is_cordoned=True)
    return replace(node, is_cordoned=True, is_emptied=True, ends_at_s=math.inf)


def cordoned(state: control_pb2.DesiredState, cordon: control_pb2.Cordon) -> control_pb2.DesiredState:
    """The state with that cordon. A node that is being drained stays so: only `uncordoned` ends that."""
    present = next((each for each in state.cordons if each.node_id == cordon.node_id), None)
    if present is not None and (present.is_draining or not cordon.is_draining):
        return next_version(state)
    changed = uncordoned(state, (cordon.node_id,))
    added = changed.cordons.add()
    added.CopyFrom(cordon)
    added.author = cordon.author[:_AUTHOR_MAX_CHARS]
    return changed


def newly_drained(desired: Desired, observed: Observed) -> list[Node]:
    """Nodes whose drain is complete and not stored as complete yet. A drained node never gets a replica again."""
    open_ids = {each.node_id for each in desired.cordons.values() if each.is_draining and not each.is_drained}
    return [node for node in observed.nodes if node.node_id in open_ids and node.is_emptied and observed.is_free(node)]


def with_drained(state: control_pb2.DesiredState, node_ids: Collection[str]) -> control_pb2.DesiredState:
    """The state in which the drains of these nodes have ended."""
    changed = next_version(state)
    for each in changed.cordons:
        each.is_drained |= each.is_draining and each.node_id in node_ids
    return changed


def uncordoned(state: control_pb2.DesiredState, node_ids: Collection[str]) -> control_pb2.DesiredState:
    """The state without the cordons of these nodes; those without any change nothing."""
    changed = next_version(state)
    keep_only(changed.cordons, (each for each in state.cordons if each.node_id not in node_ids))
    return changed
