"""Ports that have a number in common with another host: which sockets a successor gets, and how it listens beside them.

A gateway that is to listen on all interfaces goes on with the sockets of single ones, because the kernel gives
connections to the most specific socket: those that wait there are served. One that is to listen on fewer leaves the
others to the gateway that it replaces. Meanwhile both share the number (SO_REUSEPORT).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

_ANY_INTERFACE: Mapping[int, str] = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}
_BACKLOG = 1024


class Descriptor(Protocol):
    """A listening socket; those of uvloop are no `socket.socket`."""

    @property
    def family(self) -> int: ...

    def fileno(self) -> int: ...

    def getsockname(self) -> Any: ...

    def getsockopt(self, level: int, option: int) -> Any: ...

    def setsockopt(self, level: int, option: int, value: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Division:
    """The sockets of a gateway, as a successor gets them."""

    whole: Mapping[str, Sequence[Descriptor]]
    """The sockets of ports that it asks for, by name."""
    covered: Mapping[str, Sequence[Descriptor]]
    """By the name of a port with another host and the number of one of ours: those that it listens on as well."""
    overlapping: Sequence[Descriptor]
    """All on the numbers of those."""

    def taken(self, ports: Mapping[str, Sequence[Descriptor]]) -> frozenset[str]:
        """The names of our ports that the successor has all sockets of."""
        covered = {each.fileno() for found in self.covered.values() for each in found}
        others = (name for name, sockets in ports.items() if covered.issuperset(each.fileno() for each in sockets))
        return frozenset({*self.whole, *others})


def divided(ports: Mapping[str, Sequence[Descriptor]], wanted: Set[str]) -> Division:
    """`ports`: those that listen, by name. `wanted`: the names that a successor asks for."""
    left = [each for name, sockets in ports.items() if name not in wanted for each in sockets]
    covered: dict[str, list[Descriptor]] = {}
    overlapping: list[Descriptor] = []
    for name in sorted(wanted - ports.keys()):
        host, _, number = name.rpartition(":")
        here = [each for each in left if " " not in name and str(each.getsockname()[1]) == number]
        if here:
            overlapping += here
            covered[name] = [each for each in here if host in (_host_of(each), _ANY_INTERFACE.get(each.family))]
            left = [each for each in left if each not in covered[name]]
    return Division({name: ports[name] for name in sorted(wanted & ports.keys())}, covered, overlapping)


@contextmanager
def shared_numbers(sockets: Sequence[Descriptor]) -> Iterator[None]:
    """Others of this user may listen on the ports of these sockets. Linux takes that from sockets that listen too."""
    before = [(each, each.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)) for each in sockets]
    for each in sockets:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        yield
    finally:
        for each, is_shared in before:
            # One that a successor goes on with is its own from the moment in which it is closed here.
            if each.fileno() >= 0:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, is_shared)


def listen_beside(host: str, number: int, covered: Sequence[socket.socket]) -> list[socket.socket]:
    """Sockets for every address of the host, `covered` first. Blocking. Raises OSError; then `covered` are closed."""
    found = list(covered)
    try:
        for each in covered:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if host not in map(_host_of, covered):
            for family, address in _addresses(host, number):
                found.append(socket.create_server(address, family=family, backlog=_BACKLOG, reuse_port=True))
                found[-1].setblocking(False)
    except OSError:
        for each in found:
            each.close()
        raise
    return found


def _addresses(host: str, number: int) -> dict[tuple[int, tuple[str, int]], None]:
    """The addresses of every family that the host has."""
    known = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return dict.fromkeys((family, (str(address[0]), number)) for family, _, _, _, address in known)


def _host_of(listening: Descriptor) -> str:
    return str(listening.getsockname()[0])
