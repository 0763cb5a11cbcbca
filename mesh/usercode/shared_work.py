"""What is particular to work that several requests share: a batch, the load of a model."""

from __future__ import annotations

import contextvars

from mesh.context import REQUEST, current_request, get_replica_context, in_replica


def shared_context(context: contextvars.Context) -> contextvars.Context:
    """A copy of one sharer's context in which only what all sharers have is left of its request: app and model id.

    The deadline and the cancellation of one caller must not reach what others wait for; nor may calls made inside
    count as that caller's children or appear in its trace.
    """
    shared = context.copy()
    shared.run(_leave_request)
    return shared


def _leave_request() -> None:
    request = current_request()
    if request is not None:
        REQUEST.set(request.without_caller())


def replica_labels() -> tuple[str, str]:
    """Application and deployment of this process for its metrics; empty outside a replica."""
    if not in_replica():
        return "", ""
    replica = get_replica_context()
    return replica.app_name, replica.deployment
