"""Types and help texts of the options for gateways, which `mesh run` and `mesh start` share."""

import click

PORT = click.IntRange(0, 65_535)
LOCATION = click.Choice(["EveryNode", "HeadOnly", "Disabled"])
GRPC_PORT_HELP = "Port for gRPC clients; 0: none.  [default: 9000]"
HTTP_PORT_HELP = "Port for health, routes and metrics; 0: none.  [default: 8000]"
LOCATION_HELP = "Nodes that run a gateway.  [default: EveryNode]"
