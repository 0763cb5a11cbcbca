"""Requests that clients repeat because the answer was lost: what is stored already is not changed again. Pure."""

from __future__ import annotations

import grpc

from mesh.controller.desired.changes.invalid_change import InvalidChangeError
from mesh.controller.desired.changes.state_edits import Edit
from mesh.v1 import control_pb2

_REQUESTS_KEPT = 64
"""Many more than clients make while one of them repeats its request."""
_REQUEST_ID_MAX_CHARS = 100


def once(edit: Edit, request_id: str) -> Edit:
    """`edit` unless the state has it already.

    Others may have changed the same since, and their change must not be undone. An empty id is that of no request.
    Raises InvalidChangeError for an id that is too long to be kept.
    """
    if len(request_id) > _REQUEST_ID_MAX_CHARS:
        raise InvalidChangeError(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"The id of the request has {len(request_id)} characters, and at most {_REQUEST_ID_MAX_CHARS} are allowed:"
            " make a shorter one.",
        )

    def edited(state: control_pb2.DesiredState) -> control_pb2.DesiredState:
        if request_id and request_id in state.applied_requests:
            return state
        changed = edit(state)
        if request_id:
            changed.applied_requests.append(request_id)
            del changed.applied_requests[:-_REQUESTS_KEPT]
        return changed

    return edited
