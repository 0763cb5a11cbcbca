"""Links and control connections with TLS between nodes, on real sockets (no Ray)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest

from mesh.defaults.data_path_settings import LinkSettings
from mesh.link import link_stream
from mesh.link.link_target import LinkTarget
from mesh.settings import settings
from mesh.tls.certificate_files import CertificateError
from mesh.tls.development_ca import CertificatePaths, DevelopmentCa, Usage
from mesh.v1 import telemetry_pb2
from mesh.wire import link_tls as module
from mesh.wire.endpoints import open_channel, start_server
from mesh.wire.link_tls import LinkTls, link_tls
from mesh.wire.mesh_token import TOKEN_METADATA, TokenGuard
from mesh.wire.process_service import process_service
from tests.unit.fakes.raw_peer import DEADLINE_S, Service
from tests.unit.fakes.small_mesh import TOKEN, SmallMesh, SmallReplica, on_io

NAME = "mesh.internal"


@pytest.fixture
def ca(tmp_path: Path) -> DevelopmentCa:
    return DevelopmentCa(tmp_path / "pki")


@pytest.fixture
def tls(ca: DevelopmentCa, monkeypatch: pytest.MonkeyPatch) -> Iterator[LinkTls]:
    """Links of this process use TLS."""
    made = use(monkeypatch, ca, ca.issue("links", Usage.BOTH, [NAME], 1))
    monkeypatch.setattr("mesh.wire.mesh_token._token", TOKEN)
    yield made
    link_tls.cache_clear()


def use(monkeypatch: pytest.MonkeyPatch, ca: DevelopmentCa, paths: CertificatePaths) -> LinkTls:
    given = LinkSettings(
        tls_certfile=str(paths.certfile),
        tls_keyfile=str(paths.keyfile),
        tls_ca_certs=str(ca.paths.certfile),
        tls_server_name=NAME,
    )
    changed = replace(settings(), link=given)
    monkeypatch.setattr(module, "settings", lambda: changed)
    link_tls.cache_clear()
    made = link_tls()
    assert made is not None
    return made


@pytest.fixture
def replica(tls: LinkTls) -> Iterator[SmallReplica]:
    replica = SmallReplica(Service(), tls=tls.listening)
    yield replica
    replica.close()


def called(replica: SmallReplica) -> int:
    """The answer of a call on a new link. Raises what the call raises."""
    mesh = SmallMesh((replica,))
    try:
        return int(mesh.handle().remote(7).result(timeout_s=DEADLINE_S))
    finally:
        on_io(mesh.router.close())


def test_calls_cross_a_link_with_tls(replica: SmallReplica) -> None:
    mesh = SmallMesh((replica,)).connected()

    async def ciphers() -> list[str]:
        return [each._socket.get_extra_info("cipher")[1] for each in link_stream.caller_transports()]

    assert on_io(ciphers()) == ["TLSv1.3"]
    assert mesh.handle().remote(7).result(timeout_s=DEADLINE_S) == 7
    on_io(mesh.router.close())


def test_links_go_on_and_new_ones_use_the_new_certificate(
    replica: SmallReplica, tls: LinkTls, ca: DevelopmentCa
) -> None:
    mesh = SmallMesh((replica,)).connected()
    ca.issue("links", Usage.BOTH, [NAME], 1)
    tls.watch.look()
    assert set(tls.watch.reloads.values()) == {1}
    assert mesh.handle().remote(1).result(timeout_s=DEADLINE_S) == 1
    assert called(replica) == 7
    on_io(mesh.router.close())


def refused(replica: SmallReplica) -> bool:
    """Whether a new link to the replica is not established."""

    async def attempt() -> bool:
        try:
            transport = await LinkTarget(replica.replica_id, f"127.0.0.1:{replica.port}", b"").connect()
        except OSError:
            return True
        transport.abort("the test has seen it")
        return False

    return on_io(attempt())


def test_a_caller_refuses_a_replica_that_is_not_of_the_mesh(
    replica: SmallReplica, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another authority, or with another name."""
    assert not refused(replica)
    stranger = DevelopmentCa(tmp_path / "stranger")
    use(monkeypatch, stranger, stranger.issue("links", Usage.BOTH, [NAME], 1))
    assert refused(replica)


def test_a_certificate_for_another_name_is_refused(
    tls: LinkTls, ca: DevelopmentCa, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = use(monkeypatch, ca, ca.issue("other", Usage.BOTH, ["elsewhere.example"], 1))
    replica = SmallReplica(Service(), tls=other.listening)
    assert refused(replica)
    replica.close()


def test_processes_without_a_certificate_of_the_mesh_reach_no_control_port(tls: LinkTls, ca: DevelopmentCa) -> None:
    """The ports of grpc.aio: the mesh's own channel works, one without a certificate and a plain one do not."""

    async def scenario() -> None:
        server, port = await start_server([TokenGuard(process_service("p"))], "127.0.0.1")
        roots = ca.paths.certfile.read_bytes()
        named = [("grpc.ssl_target_name_override", NAME)]
        try:
            async with open_channel(f"127.0.0.1:{port}") as own:
                assert (await metrics(own)).process_id == "p"
            without = grpc.ssl_channel_credentials(roots)
            async with grpc.aio.secure_channel(f"127.0.0.1:{port}", without, options=named) as nameless:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await metrics(nameless)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as plain:
                with pytest.raises(grpc.aio.AioRpcError):
                    await metrics(plain)
            ca.issue("links", Usage.BOTH, [NAME], 1)
            tls.watch.look()
            async with open_channel(f"127.0.0.1:{port}") as own:
                assert (await metrics(own)).process_id == "p"
        finally:
            await server.stop(0)

    on_io(scenario())


async def metrics(channel: grpc.aio.Channel) -> telemetry_pb2.MetricsReply:
    call = channel.unary_unary(
        "/mesh.v1.Process/Metrics",
        request_serializer=telemetry_pb2.MetricsRequest.SerializeToString,
        response_deserializer=telemetry_pb2.MetricsReply.FromString,
    )
    reply: telemetry_pb2.MetricsReply = await call(
        telemetry_pb2.MetricsRequest(), metadata=((TOKEN_METADATA, TOKEN),), timeout=10
    )
    return reply


def test_settings_name_all_three_files_or_none(ca: DevelopmentCa, monkeypatch: pytest.MonkeyPatch) -> None:
    def given(**changes: str) -> None:
        changed = replace(settings(), link=LinkSettings(**changes))
        monkeypatch.setattr(module, "settings", lambda: changed)
        link_tls.cache_clear()

    given()
    assert link_tls() is None
    given(tls_certfile="a.crt")
    with pytest.raises(ValueError, match="set MESH_LINK_TLS_KEYFILE and MESH_LINK_TLS_CA_CERTS too"):
        link_tls()
    given(tls_certfile="/no/links.crt", tls_keyfile="/no/links.key", tls_ca_certs="/no/ca.crt")
    with pytest.raises(CertificateError, match=r"^MESH_LINK_TLS_CERTFILE: cannot read /no/links\.crt"):
        link_tls()
    link_tls.cache_clear()
    shutil.rmtree(ca.directory)
