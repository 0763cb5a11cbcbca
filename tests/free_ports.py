"""Ports for tests that have to know one before something listens there."""

import random
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

PORT_MIN, PORT_MAX = 20_000, 65_535
"""Ray's own workers listen below."""


def free_port() -> int:
    (port,) = free_ports(1)
    return port


def free_ports(count: int) -> list[int]:
    """Of those that the kernel gives to no connection: they stay free while a gateway ends and another one starts."""
    given_low, given_high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    candidates = [each for each in range(PORT_MIN, PORT_MAX + 1) if not given_low <= each <= given_high] or [0] * 100
    with ExitStack() as stack:
        found: list[int] = []
        for port in random.sample(candidates, min(len(candidates), 100)):
            probe = stack.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(probe.getsockname()[1])
            if len(found) == count:
                return found
    pytest.fail(f"of 100 ports from {PORT_MIN} to {PORT_MAX} only {found} are free")
