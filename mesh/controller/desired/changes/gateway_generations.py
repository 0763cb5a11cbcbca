"""Generations of the gateways' options: those that proved themselves last stay until all have others. Pure."""

from __future__ import annotations

import grpc

from mesh.controller.desired.changes.invalid_change import InvalidChangeError
from mesh.controller.desired.changes.state_edits import next_version, same_version
from mesh.options.gateway.gateway_changes import refusal_of
from mesh.v1 import control_pb2


def with_gateways(
    state: control_pb2.DesiredState, options: control_pb2.GatewayOptions, expected: control_pb2.GatewayOptions
) -> control_pb2.DesiredState:
    """The state with these options of gateways.

    Raises InvalidChangeError if it has others than `expected`, and for what gateways cannot get while they run.
    """
    if state.is_shutting_down:
        raise InvalidChangeError(grpc.StatusCode.FAILED_PRECONDITION, "The mesh is shutting down.")
    if options == state.gateways:
        return same_version(state)
    if state.gateways != expected:
        raise InvalidChangeError(
            grpc.StatusCode.ABORTED,
            "The options of the gateways were changed by another program at the same time. Call again to change them.",
        )
    if reason := refusal_of(state.gateways, options):
        raise InvalidChangeError(grpc.StatusCode.FAILED_PRECONDITION, reason)
    changed = next_version(state)
    changed.gateways.CopyFrom(options)
    if not state.HasField("gateways_before"):
        changed.gateways_before.options.CopyFrom(state.gateways)
        changed.gateways_before.number = state.gateways_revision
    if changed.gateways_before.options == options:
        changed.gateways_revision = changed.gateways_before.number
        changed.ClearField("gateways_before")
    else:
        changed.gateways_revision_max += 1
        changed.gateways_revision = changed.gateways_revision_max
    return changed


def with_proven_gateways(state: control_pb2.DesiredState, revision: int) -> control_pb2.DesiredState:
    """The state in which options of that revision need none before them, unless others came meanwhile."""
    changed = next_version(state)
    if state.gateways_revision == revision:
        changed.ClearField("gateways_before")
    return changed
