"""The gRPC port with TLS: stock clients, client certificates, and certificates that change under calls."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from gateway.security import Security
from mesh.defaults.gateway_settings import GatewaySettings
from mesh.options.gateway.gateway_options import parse
from mesh.settings import settings
from mesh.tls import tls_listener
from mesh.wire.outcome import Outcome
from tests.unit.fakes.certificates import Pki
from tests.unit.gateway.fakes import BIDI, UNARY, FakeRouter, allow, echo, finish, item, on_io_loop, until
from tests.unit.gateway.guarded import guarded, open_channel


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki")


def tls_options(pki: Pki, **more: Any) -> dict[str, Any]:
    paths = pki.server()
    return {"ssl_certfile": str(paths.certfile), "ssl_keyfile": str(paths.keyfile), **more}


async def code_of(channel: grpc.aio.Channel, **metadata: str) -> grpc.StatusCode:
    try:
        await channel.unary_unary(UNARY)(b"x", metadata=tuple(metadata.items()), timeout=10)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_a_stock_client_calls_over_tls(pki: Pki) -> None:
    async def scenario() -> None:
        async with guarded(FakeRouter(echo), pki.credentials(), **tls_options(pki)) as (gateway, _):
            assert await gateway.channel.unary_unary(UNARY)(b"hello", timeout=10) == b"hello"
            async with open_channel(gateway) as plain:
                assert await code_of(plain) is grpc.StatusCode.UNAVAILABLE
            async with open_channel(gateway, Pki(pki.ca.directory / "stranger").credentials()) as mistrusting:
                assert await code_of(mistrusting) is grpc.StatusCode.UNAVAILABLE

    on_io_loop(scenario())


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_negotiates_http2(pki: Pki) -> None:
    async def scenario() -> None:
        async with guarded(FakeRouter(echo), pki.credentials(), **tls_options(pki)) as (gateway, _):
            command = ["curl", "--silent", "--http2", "--cacert", pki.ca_certs, "--max-time", "10"]
            command += ["--output", "/dev/null", "--write-out", "%{http_version} %{http_code}"]
            ran = await asyncio.to_thread(
                subprocess.run, [*command, f"https://localhost:{gateway.port}/"], capture_output=True, timeout=20
            )
            assert ran.stdout.split()[0] == b"2", ran

    on_io_loop(scenario())


def test_clients_that_connect_and_say_nothing_are_limited(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest make room, so that others still get in; and none holds up the end of the server."""
    monkeypatch.setattr(tls_listener, "HANDSHAKES_MAX", 3)

    async def scenario() -> None:
        async with guarded(FakeRouter(echo), pki.credentials(), **tls_options(pki)) as (gateway, _):
            silent = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(5)]
            for reader, _ in silent[:2]:
                async with asyncio.timeout(30):
                    assert await reader.read() == b""
            assert await gateway.channel.unary_unary(UNARY)(b"x", timeout=10) == b"x"
            (listener,) = gateway.listener.server.sockets._listeners
            assert isinstance(listener, tls_listener.TlsListener)
            assert 2 <= listener.handshakes <= 3
        for reader, writer in silent[3:]:
            async with asyncio.timeout(30):
                assert await reader.read() == b""
            writer.close()

    on_io_loop(scenario())


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_versions_of_tls_are_refused(pki: Pki) -> None:
    def knock(port: int, version: ssl.TLSVersion) -> bool:
        context = pki.client_context()
        context.minimum_version = context.maximum_version = version
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            try:
                context.wrap_socket(connection, server_hostname="localhost").close()
            except ssl.SSLError:
                return False
            return True

    async def scenario() -> None:
        async with guarded(FakeRouter(echo), **tls_options(pki)) as (gateway, _):
            assert not await asyncio.to_thread(knock, gateway.port, ssl.TLSVersion.TLSv1_1)
            assert await asyncio.to_thread(knock, gateway.port, ssl.TLSVersion.TLSv1_2)

    on_io_loop(scenario())


def test_mtls_lets_only_signed_clients_in(pki: Pki) -> None:
    """Both sides verify each other."""

    async def scenario() -> None:
        options = tls_options(pki, ssl_ca_certs=pki.ca_certs)
        async with guarded(FakeRouter(echo), pki.credentials(pki.client()), **options) as (gateway, _):
            assert await code_of(gateway.channel) is grpc.StatusCode.OK
            async with open_channel(gateway, pki.credentials()) as nameless:
                assert await code_of(nameless) is grpc.StatusCode.UNAVAILABLE
            stranger = Pki(pki.ca.directory / "stranger").client()
            async with open_channel(gateway, pki.credentials(stranger)) as stranger_s:
                assert await code_of(stranger_s) is grpc.StatusCode.UNAVAILABLE

    on_io_loop(scenario())


def test_a_client_certificate_is_an_identity(pki: Pki) -> None:
    """Clients without one may call too where it is optional, but then they need another proof."""

    async def scenario() -> None:
        options = tls_options(
            pki,
            ssl_ca_certs=pki.ca_certs,
            ssl_client_certificates="optional",
            authentication={"certificates": True},
        )
        router = FakeRouter(echo)
        async with guarded(router, pki.credentials(pki.client("alice")), **options) as (gateway, _):
            assert await code_of(gateway.channel) is grpc.StatusCode.OK
            identity = router.calls[-1].request.context.identity
            assert identity is not None
            assert (identity.name, identity.attributes) == ("alice", {"x509_common_name": "alice"})
            async with open_channel(gateway, pki.credentials()) as nameless:
                assert await code_of(nameless) is grpc.StatusCode.UNAUTHENTICATED
        assert len(router.calls) == 1

    on_io_loop(scenario())


def test_a_new_certificate_is_served_while_calls_go_on(pki: Pki) -> None:
    """A stream that is open keeps its connection; new connections see the new certificate; none fails."""

    def answer(call: Any) -> None:
        if call.request.streams_request:
            allow(call, 100)
            router.link.on_item = lambda call, data: item(call, data)
            router.link.on_half_close = lambda call: finish(call, Outcome())
        else:
            echo(call)

    router = FakeRouter(answer)

    async def scenario() -> None:
        async with guarded(router, pki.credentials(), **tls_options(pki)) as (gateway, security):
            stream = gateway.channel.stream_stream(BIDI)(timeout=30)
            await stream.write(b"before")
            assert await stream.read() == b"before"
            before = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", gateway.port), timeout=10)
            for number in range(5):
                pki.server()
                await asyncio.to_thread(security._watch.look)
                async with open_channel(gateway, pki.credentials()) as fresh:
                    assert await code_of(fresh) is grpc.StatusCode.OK
                assert await code_of(gateway.channel) is grpc.StatusCode.OK
                await stream.write(b"%d" % number)
                assert await stream.read() == b"%d" % number
            after = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", gateway.port), timeout=10)
            assert before != after
            await stream.done_writing()
            assert await stream.read() is grpc.aio.EOF
            samples = {family.name: samples for family, samples in security.collect()}
            (taken,) = [each for each in samples["mesh_gateway_file_reloads_total"] if each.label_values[1] == "ok"]
            assert taken.value == 5

    on_io_loop(scenario())


def test_the_watch_of_a_gateway_runs_by_itself(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with guarded(FakeRouter(echo), **tls_options(pki)) as (gateway, security):
            before = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", gateway.port), timeout=10)
            expires_at_s = security._tls["grpc"].expires_at_s
            pki.server(days=9)
            await until(lambda: security._tls["grpc"].expires_at_s > expires_at_s, "the new certificate")
            after = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", gateway.port), timeout=10)
            assert before != after

    often = replace(settings(), gateway=GatewaySettings(files_interval_s=0.01))
    monkeypatch.setattr("gateway.security.settings", lambda: often)
    on_io_loop(scenario())


def test_a_gateway_does_not_start_with_wrong_files(pki: Pki) -> None:
    """The error names the option and the file; `mesh.start` and `mesh status` show it."""
    options = tls_options(pki)
    Path(options["ssl_keyfile"]).unlink()

    async def scenario() -> None:
        with pytest.raises(ValueError, match=r"grpc_options\['ssl_keyfile'\]: cannot read .*/server\.key"):
            await Security(parse(None, None, options).to_message()).load()

    on_io_loop(scenario())
