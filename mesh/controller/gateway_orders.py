"""The change of the gateways' options that a client asks for, and its refusal. Pure."""

from __future__ import annotations

import grpc

from mesh.controller.desired.generations import with_gateways
from mesh.controller.desired.invalid_change import InvalidChangeError
from mesh.options.gateway.gateway_changes import refusal_of
from mesh.v1 import control_pb2


def with_asked_gateways(
    state: control_pb2.DesiredState, request: control_pb2.ConfigureGatewaysRequest
) -> control_pb2.DesiredState:
    """The state with these options. Raises InvalidChangeError for what gateways cannot get while they run."""
    changed = with_gateways(state, request.options, request.expected)
    if reason := refusal_of(state.gateways, request.options):
        raise InvalidChangeError(grpc.StatusCode.FAILED_PRECONDITION, reason)
    return changed
