"""Checks of what `http_options` and `grpc_options` have in common."""

from __future__ import annotations

from mesh.options import option_checks

_MAX_PORT = 65_535


def check_port(name: str, port: object) -> None:
    """None: no listener."""
    if port is not None:
        option_checks.whole_number(name, port, 0, _MAX_PORT)


def check_timeout(name: str, value: object) -> None:
    """None: no limit."""
    if value is not None:
        option_checks.number(name, value, may_equal=False)
