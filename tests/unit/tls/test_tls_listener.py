"""Which addresses a port with TLS listens on."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from mesh.tls.tls_listener import TlsListener

IPV4 = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))
IPV6 = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0))


def without_ipv6(monkeypatch: pytest.MonkeyPatch, code: int = errno.EAFNOSUPPORT) -> None:
    """As where the kernel has none, although the resolver names such addresses."""

    class Socket(socket.socket):
        def __init__(self, family: int = -1, *others: Any, **named: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(code, "no such socket")
            super().__init__(family, *others, **named)

    monkeypatch.setattr("mesh.tls.tls_listener.socket.socket", Socket)


def opened(addresses: list[tuple[Any, ...]], check: Callable[[TlsListener], None]) -> None:
    async def resolve(*_: object, **__: object) -> list[tuple[Any, ...]]:
        return addresses

    async def scenario() -> None:
        asyncio.get_running_loop().getaddrinfo = resolve  # type: ignore[method-assign, assignment]
        listener = TlsListener(lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), asyncio.Protocol)
        try:
            await listener.open("localhost", 0, shares_port=False, backlog=10)
            check(listener)
        finally:
            listener.close()
        assert not listener.is_serving()

    asyncio.run(scenario())


def test_a_family_that_the_system_does_not_have_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    without_ipv6(monkeypatch)

    def check(listener: TlsListener) -> None:
        assert [each.getsockname()[0] for each in listener.sockets] == ["127.0.0.1"]

    opened([IPV6, IPV4], check)


@pytest.mark.parametrize(
    ("addresses", "code"), [([IPV6], errno.EAFNOSUPPORT), ([IPV4, IPV6], errno.EMFILE)], ids=["none left", "others"]
)
def test_a_port_without_all_its_addresses_does_not_open(
    monkeypatch: pytest.MonkeyPatch, addresses: list[tuple[Any, ...]], code: int
) -> None:
    without_ipv6(monkeypatch, code)
    with pytest.raises(OSError, match="no such socket") as caught:
        opened(addresses, lambda listener: None)
    assert caught.value.errno == code
