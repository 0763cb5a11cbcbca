"""`ProxyLocation`: the nodes that run gateways."""

from __future__ import annotations

from enum import StrEnum

from mesh.v1 import control_pb2


class ProxyLocation(StrEnum):
    """The nodes that run gateways."""

    Disabled = "Disabled"
    HeadOnly = "HeadOnly"
    EveryNode = "EveryNode"


class DeploymentMode(StrEnum):
    """The old name and members of `ProxyLocation` in Ray Serve."""

    NoServer = "NoServer"
    HeadOnly = "HeadOnly"
    EveryNode = "EveryNode"


_LOCATIONS = {
    ProxyLocation.Disabled: control_pb2.GATEWAY_LOCATION_DISABLED,
    ProxyLocation.HeadOnly: control_pb2.GATEWAY_LOCATION_HEAD_ONLY,
    ProxyLocation.EveryNode: control_pb2.GATEWAY_LOCATION_EVERY_NODE,
}


def parse(asked: ProxyLocation | str | None) -> ProxyLocation:
    """Raises TypeError or ValueError for what is not a location. None: every node."""
    if asked is None:
        return ProxyLocation.EveryNode
    if asked == "NoServer":
        return ProxyLocation.Disabled
    if not isinstance(asked, str):
        raise TypeError(f"proxy_location must be a string or a ProxyLocation, got {asked!r}.")
    try:
        return ProxyLocation(asked)
    except ValueError as error:
        raise ValueError(f"proxy_location must be one of {', '.join(ProxyLocation)}, got {asked!r}.") from error


def to_message(location: ProxyLocation) -> control_pb2.GatewayLocation:
    return _LOCATIONS[location]
