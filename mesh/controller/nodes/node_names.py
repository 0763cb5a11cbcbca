"""Which node an operator means: by id, by the beginning of it, or by address. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import grpc

from mesh.controller.desired.changes.invalid_change import InvalidChangeError
from mesh.controller.plan.cluster_picture import Node

PREFIX_MIN_CHARS = 4
"""A prefix of an id needs this many characters, so that a typing mistake does not drain some node."""
_LISTED_MAX = 50
_NAME_SHOWN_CHARS = 60
"""A little longer than an id."""


def find_node(nodes: Sequence[Node], name: str) -> Node:
    """The node of that name. Raises InvalidChangeError with a list if there is none, or more than one.

    An id or an address is a name, and so are the first characters of an id that no other node has.
    """
    wanted = name.strip().lower()
    exact = [node for node in nodes if wanted and wanted in (node.node_id, node.address)]
    found = exact or [node for node in nodes if wanted and node.node_id.startswith(wanted)]
    shown = repr(name[:_NAME_SHOWN_CHARS]) + ("..." if len(name) > _NAME_SHOWN_CHARS else "")
    if found and not exact and len(wanted) < PREFIX_MIN_CHARS:
        text = f"{shown} is too short to name a node: give at least {PREFIX_MIN_CHARS} characters of the id of one of "
        raise InvalidChangeError(grpc.StatusCode.INVALID_ARGUMENT, f"{text}{_listed(found)}.")
    if len(found) == 1:
        return found[0]
    if found:
        # Nodes on one machine share their address.
        text = f"{shown} may be any of {len(found)} nodes: {_listed(found)}. Give more of the id."
        raise InvalidChangeError(grpc.StatusCode.FAILED_PRECONDITION, text)
    text = f"There is no node {shown}. There are: {_listed(nodes) or 'none that the controller knows yet'}."
    raise InvalidChangeError(grpc.StatusCode.NOT_FOUND, text)


def title_of(node: Node) -> str:
    """As logs name it."""
    return f"{node.node_id[:8]} ({node.address})" if node.address else node.node_id[:8]


def _listed(nodes: Iterable[Node]) -> str:
    names = [f"{title_of(node)}{', the head' if node.is_head else ''}" for node in nodes]
    more = f" and {len(names) - _LISTED_MAX} more" if len(names) > _LISTED_MAX else ""
    return "; ".join(names[:_LISTED_MAX]) + more
