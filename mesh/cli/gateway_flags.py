"""Types and help texts of the options for gateways, which `mesh run` and `mesh start` share."""

from __future__ import annotations

from typing import Any

import click

_NONE = "none"


class PortFlag(click.IntRange):
    """A port, or "none"."""

    name = "port"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        return _NONE if value == _NONE else super().convert(value, parameter, context)


PORT = PortFlag(0, 65_535)
LOCATION = click.Choice(["EveryNode", "HeadOnly", "Disabled"])
GRPC_PORT_HELP = "Port for gRPC clients; 0: any free port, none: no gRPC.  [default: 9000]"
HTTP_PORT_HELP = "Port for health, routes and metrics; 0: any free port, none: no HTTP.  [default: 8000]"
LOCATION_HELP = "Nodes that run a gateway.  [default: EveryNode]"


def port_option(flag: int | str | None) -> dict[str, Any]:
    """The field of `http_options` or `grpc_options`; nothing for a flag that is not given."""
    return {} if flag is None else {"port": None if flag == _NONE else flag}
