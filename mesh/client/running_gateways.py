"""The gateways of a mesh that runs already get the options that a call of `mesh.start` names."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mesh.client import mesh_lifecycle, port_check, rollout_wait
from mesh.client.control_client import ControlClient
from mesh.options.gateway import gateway_options
from mesh.options.gateway.gateway_changes import GatewayChange, NamedOptions, change_of
from mesh.options.gateway.gateway_options import GatewayRequest

logger = logging.getLogger("mesh")

EFFECT = "gateways are replaced, one node at a time"


def change_for(client: ControlClient, asked: GatewayRequest, named: NamedOptions) -> GatewayChange:
    """What the call would change. Raises ValueError for what cannot be changed under calls."""
    return change_of(client.status().gateway_options, asked.to_message(), named)


def change_lines(
    client: ControlClient,
    location: str | None,
    http: Mapping[str, Any],
    grpc: Mapping[str, Any],
    logging_config: Mapping[str, Any] | None = None,
    tracing_config: Mapping[str, Any] | None = None,
) -> list[str]:
    """What `mesh.start` with these options would change, in a line for users. Raises ValueError where it would."""
    asked = gateway_options.parse(location, http, grpc, logging_config, tracing_config)
    named = NamedOptions.of(location, http, grpc, logging=logging_config, tracing=tracing_config)
    change = change_for(client, asked, named)
    return [f"gateways: {', '.join(change.names)} ({EFFECT})"] if change.names else []


def adapt(client: ControlClient, asked: GatewayRequest, named: NamedOptions, servicer_functions: bytes) -> None:
    """Returns when all gateways have the options. Those that cannot be changed are ignored with a warning.

    Packed `servicer_functions`, where they are named, are for what is deployed from now on.

    Raises ValueError for a change that is refused, OSError if a new port is taken on this machine, and TimeoutError
    with the reason if no gateway starts with the new options: then those with the former ones go on.
    """
    change = change_for(client, asked, named)
    if change.ignored:
        logger.warning(
            "the mesh is already running; these options of mesh.start() are ignored: %s. "
            "Call mesh.shutdown() first to change them.",
            ", ".join(change.ignored),
        )
    if change.names:
        port_check.require_free(change.after, change.before)
        logger.info("changing options of the gateways, one node at a time: %s", ", ".join(change.names))
        client.configure_gateways(change.after, change.before)
        rollout_wait.until_gateways_changed(client)
    if named.has_servicer_functions:
        mesh_lifecycle.store_servicer_functions(servicer_functions)
