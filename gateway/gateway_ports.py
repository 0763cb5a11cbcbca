"""The ports of a gateway: opened, or taken over from the gateway that it replaces, and offered to its own successor."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.gateway_listener import GatewayListener
from gateway.overlapping_ports import Descriptor, listen_beside
from gateway.port_handover import PortOffer, TakenPorts, take_ports
from gateway.security import Security
from mesh.settings import settings
from mesh.v1 import control_pb2

_ANY_INTERFACE = "0.0.0.0"
_IPV4_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class AskedPort:
    """A port as the options name it."""

    kind: str
    """"grpc" or "http": the door, every port speaks both."""
    host: str
    number: int
    """0: any free one."""
    shares: bool = False
    """Other gateways of the node listen on it too."""

    @property
    def name(self) -> str:
        """The same for gateways that ask for the same port."""
        return f"{self.host}:{self.number}" if self.number else f"{self.kind} {self.host}"


def asked_ports(options: control_pb2.GatewayOptions) -> Iterator[AskedPort]:
    """Pure but for the default interface, which is a setting."""
    if options.HasField("grpc_port"):
        host = options.grpc_host or settings().gateway.host
        yield AskedPort("grpc", host, options.grpc_port, shares=options.processes > 1)
    if options.HasField("http_port"):
        host = options.http_host or settings().gateway.host
        # One address: for two, port 0 would be two ports.
        yield AskedPort("http", _IPV4_LOOPBACK if host == "localhost" else host, options.http_port)


class GatewayPorts:
    """On the event loop of the gateway."""

    def __init__(self, spec: control_pb2.GatewaySpec, node_ip: str, listener: GatewayListener) -> None:
        self._spec = spec
        self._node_ip = node_ip
        self._listener = listener
        self._opened: list[str] = []
        """Names, in the order in which the listener has opened them."""
        self._taken: TakenPorts | None = None
        self._offer = PortOffer(self._sockets)

    def __repr__(self) -> str:
        return f"<GatewayPorts {self._opened} {self._offer!r}>"

    @property
    def is_replaced(self) -> bool:
        """A successor listens on all ports too: clients find it where this gateway was."""
        return bool(self._opened) and self._offer.taken.issuperset(self._opened)

    async def open(self, security: Security) -> Mapping[str, str]:
        """Returns the addresses by kind. Raises OSError naming a port that is taken."""
        asked = list(asked_ports(self._spec.options))
        if self._spec.takes_over:
            names = {each.name for each in asked}
            self._taken = await asyncio.to_thread(take_ports, self._spec.takes_over, names)
        addresses = {}
        for port in asked:
            bound = await self._listener.start(
                port.host,
                port.number,
                self._spec.options.max_message_bytes,
                shares_port=port.shares,
                tls=security.tls(port.kind),
                inherited=await self._inherited(port),
            )
            self._opened.append(port.name)
            addresses[port.kind] = f"{self._node_ip if port.host == _ANY_INTERFACE else port.host}:{bound}"
        return addresses

    def offer(self) -> str:
        """Where a gateway that replaces this one gets its listening sockets."""
        return self._offer.open()

    def leave(self) -> None:
        """Accept no connection any more where a successor does."""
        taken = self._offer.taken
        self._listener.server.sockets.close_ports(number for number, name in enumerate(self._opened) if name in taken)

    def close(self) -> None:
        self._offer.close()
        if self._taken is not None:
            self._taken.close()

    async def _inherited(self, port: AskedPort) -> Sequence[socket.socket]:
        """Sockets that listen already, as those of the gateway that this one replaces do. Raises OSError."""
        if self._taken is None:
            return ()
        covered = self._taken.pop_covered(port.name)
        if covered is None:
            return self._taken.pop(port.name)
        try:
            return await asyncio.to_thread(listen_beside, port.host, port.number, covered)
        except OSError as error:
            raise OSError(f"cannot listen on {port.host}:{port.number}: {error.strerror or error}") from error

    def _sockets(self) -> dict[str, Sequence[Descriptor]]:
        return dict(zip(self._opened, self._listener.server.sockets.listening(), strict=True))
