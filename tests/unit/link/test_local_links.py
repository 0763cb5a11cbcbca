"""Links to replicas on the same node use a Unix socket, where there is one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest

from mesh.link import link_stream
from mesh.link.link_target import LinkTarget
from mesh.routing.snapshot import ReplicaInfo
from mesh.wire.mesh_token import local_socket
from tests.unit.fakes.raw_peer import DEADLINE_S, Service
from tests.unit.fakes.small_mesh import TOKEN, SmallMesh, SmallReplica, on_io, until

pytestmark = pytest.mark.timeout(60)


class LocalReplica(SmallReplica):
    """On the node of its callers."""

    @property
    def info(self) -> ReplicaInfo:
        return ReplicaInfo(self.replica_id, f"127.0.0.1:{self.port}", "node")

    def listen_unix(self) -> None:
        assert self._server is not None
        on_io(self._server.listen_unix(local_socket(self.info.address, TOKEN)))


@pytest.fixture
def replica() -> Iterator[LocalReplica]:
    with patch("mesh.wire.mesh_token._token", TOKEN):
        replica = LocalReplica(Service())
        yield replica
        replica.close()


def peers() -> list[str]:
    """The other ends of this process's links."""

    async def ask() -> list[str]:
        return [transport.peer for transport in link_stream.caller_transports()]

    return on_io(ask())


def test_a_link_on_one_node_uses_the_unix_socket(replica: LocalReplica) -> None:
    replica.listen_unix()
    mesh = SmallMesh((replica,)).connected()
    assert peers() == ["unix:"]
    assert mesh.handle().remote(7).result(timeout_s=DEADLINE_S) == 7
    on_io(mesh.router.close())


def test_the_unix_socket_holds_more_of_a_large_message_than_others_do(replica: LocalReplica) -> None:
    """So its ends wake each other less often."""

    async def buffers() -> list[int]:
        sockets = [transport._socket.get_extra_info("socket") for transport in link_stream.caller_transports()]
        return [each.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) for each in sockets]

    replica.listen_unix()
    mesh = SmallMesh((replica,)).connected()
    with socket.socket(socket.AF_UNIX) as other:
        usual = other.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    assert min(on_io(buffers())) > usual
    on_io(mesh.router.close())


def test_a_link_on_one_node_falls_back_to_tcp(replica: LocalReplica) -> None:
    """As between two containers that share a node but no network."""
    mesh = SmallMesh((replica,)).connected()
    (peer,) = peers()
    assert peer.startswith("ipv4:127.0.0.1:")
    on_io(mesh.router.close())


def test_replicas_elsewhere_are_reached_by_tcp_only(replica: LocalReplica, monkeypatch: pytest.MonkeyPatch) -> None:
    targets: list[LinkTarget] = []

    def noted(*fields: Any) -> LinkTarget:
        targets.append(LinkTarget(*fields))
        return targets[-1]

    monkeypatch.setattr("mesh.routing.link_pool.LinkTarget", noted)
    far = ReplicaInfo(replica.replica_id, replica.info.address, "another node")
    with patch.object(LocalReplica, "info", far):
        mesh = SmallMesh((replica,))
        until(lambda: targets, "a link")
        on_io(mesh.router.close())
    assert targets[0].local_socket == ""


def test_the_name_of_a_socket_depends_on_the_token() -> None:
    name = local_socket("10.0.0.1:4711", TOKEN)
    assert name.startswith("\0mesh-")
    assert name != local_socket("10.0.0.1:4711", b"another token")
    assert name != local_socket("10.0.0.1:4712", TOKEN)
