"""Links that do not come up: what their routers learn of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import create_autospec

import pytest

from mesh.link import link_connection
from mesh.link.caller_link import CallerLink, LinkObserver
from mesh.link.link_target import LinkTarget
from mesh.settings import settings
from tests.unit.fakes.small_mesh import on_io

TIMEOUT_S = 0.05


@pytest.fixture
def deaf() -> Iterator[str]:
    """The address of a socket whose connections nothing reads."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def unreachable(deaf: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An address at which no connection comes about, as behind a firewall that drops what comes."""

    async def connect(self: LinkTarget) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(LinkTarget, "connect", connect)
    return deaf


def why_broken(address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The reason that the router gets."""
    impatient = replace(settings(), link=replace(settings().link, connect_timeout_s=TIMEOUT_S))
    monkeypatch.setattr(link_connection, "settings", lambda: impatient)
    router = create_autospec(LinkObserver, instance=True)
    link = CallerLink("replica-1", router)
    assert not on_io(link_connection.run_link(link, LinkTarget("replica-1", address, b"hello")))
    (_, reason, unsent, sent), _ = router.on_broken.call_args
    assert not unsent
    assert not sent
    return str(reason)


def test_a_replica_that_says_nothing_has_not_answered(deaf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_broken(deaf, monkeypatch) == "no answer to Hello within 0.05 s"


def test_an_address_that_cannot_be_reached_is_not_a_silent_replica(
    unreachable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert why_broken(unreachable, monkeypatch) == "no connection within 0.05 s"


def test_an_address_at_which_nothing_listens_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert why_broken(f"127.0.0.1:{port}", monkeypatch).startswith("ConnectionRefusedError: ")
