"""mesh.tls.current_tls and file_watch: certificates that change while a port listens."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import ssl
from pathlib import Path

import pytest

from mesh.tls.certificate_files import CertificateError, CertificateFiles
from mesh.tls.current_tls import CurrentTls
from mesh.tls.file_watch import FileWatch
from mesh.tls.tls_context import server_context
from mesh.tls.tls_listener import TlsListener
from tests.unit.fakes.certificates import Pki, handshake, serial_of
from tests.unit.fakes.small_mesh import on_io


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki")


def watched(pki: Pki, **options: object) -> tuple[CurrentTls, FileWatch]:
    files, watch = pki.files(pki.server(), **options), FileWatch()  # type: ignore[arg-type]
    return added(watch, files), watch


def added(watch: FileWatch, files: CertificateFiles) -> CurrentTls:
    tls = CurrentTls("certificate", files, ["h2"], server_context)
    watch.add(tls)
    return tls


def test_new_handshakes_get_the_new_certificate(pki: Pki) -> None:
    tls, watch = watched(pki)
    client = pki.client_context()
    before = serial_of(tls.context(), client)
    watch.look()
    assert serial_of(tls.context(), client) == before
    pki.server()
    watch.look()
    assert serial_of(tls.context(), client) != before
    assert (watch.reloads, watch.refusals) == ({"certificate": 1}, {"certificate": 0})


def test_wrong_new_files_leave_the_old_certificate(pki: Pki, caplog: pytest.LogCaptureFixture) -> None:
    tls, watch = watched(pki)
    client = pki.client_context()
    before, paths = serial_of(tls.context(), client), pki.server("other")
    expiry = tls.expires_at_s
    with caplog.at_level(logging.INFO, "mesh"):
        shutil.copy(paths.keyfile, tls.paths[1])
        watch.look()
        watch.look()
    assert serial_of(tls.context(), client) == before
    assert tls.expires_at_s == expiry
    assert watch.refusals == {"certificate": 1}
    (record,) = caplog.records
    assert "the certificate stays as it was" in record.message
    assert "does not belong" in record.message
    # The other half of the renewal arrives.
    shutil.copy(paths.certfile, tls.paths[0])
    watch.look()
    assert serial_of(tls.context(), client) != before


def test_files_that_are_gone_leave_the_old_certificate(pki: Pki) -> None:
    tls, watch = watched(pki)
    os.unlink(tls.paths[0])
    watch.look()
    assert watch.refusals == {"certificate": 1}
    assert serial_of(tls.context(), pki.client_context())


def test_files_behind_a_link_are_seen(pki: Pki, tmp_path: Path) -> None:
    """Kubernetes replaces mounted secrets by one link that points elsewhere."""
    first, second = pki.server("first"), pki.server("second")
    for name in ("v1", "v2"):
        (tmp_path / name).mkdir()
    for paths, version in ((first, "v1"), (second, "v2")):
        shutil.copy(paths.certfile, tmp_path / version / "tls.crt")
        shutil.copy(paths.keyfile, tmp_path / version / "tls.key")
    link = tmp_path / "now"
    link.symlink_to("v1")
    files = pki.files(type(first)(link / "tls.crt", link / "tls.key"))
    watch = FileWatch()
    tls = added(watch, files)
    before = serial_of(tls.context(), pki.client_context())
    os.symlink("v2", tmp_path / "next")
    os.replace(tmp_path / "next", link)
    watch.look()
    assert serial_of(tls.context(), pki.client_context()) != before


def test_the_first_load_raises(pki: Pki) -> None:
    paths = pki.server()
    paths.certfile.unlink()
    with pytest.raises(CertificateError, match="cannot read"):
        added(FileWatch(), pki.files(paths))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_removed_authority_ends_the_admission_of_its_clients(
    pki: Pki, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """New handshakes are checked against the new authorities; a session of before cannot be resumed."""
    other = Pki(tmp_path / "other")
    authorities = tmp_path / "authorities.crt"
    authorities.write_bytes(pki.ca.paths.certfile.read_bytes() + other.ca.paths.certfile.read_bytes())
    tls, watch = watched(pki, ca_certs=str(authorities))
    theirs = pki.client_context(other.client())
    theirs.maximum_version = version
    asking, answering = handshake(tls.context(), theirs)
    assert answering.getpeercert()
    authorities.write_bytes(pki.ca.paths.certfile.read_bytes())
    watch.look()
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tls.context(), theirs, asking.session)
    assert handshake(tls.context(), pki.client_context(pki.client()))[1].getpeercert()


def test_clients_without_a_certificate_are_refused_unless_it_is_optional(pki: Pki) -> None:
    required, _ = watched(pki, ca_certs=pki.ca_certs)
    with pytest.raises(ssl.SSLError, match="did not return a certificate"):
        handshake(required.context(), pki.client_context())
    optional, _ = watched(pki, ca_certs=pki.ca_certs, is_peer_optional=True)
    assert handshake(optional.context(), pki.client_context())[1].getpeercert() is None
    stranger = Pki(Path(pki.ca_certs).parent.parent / "stranger").client()
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(optional.context(), pki.client_context(stranger))


def test_open_connections_go_on_when_the_certificate_changes(pki: Pki) -> None:
    """On real sockets, with the event loop of the product."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    async def scenario() -> tuple[str, str]:
        tls, watch = watched(pki)
        server = TlsListener(tls.context, lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader(), echo))
        await server.open("127.0.0.1", 0, shares_port=False, backlog=10)
        port = server.sockets[0].getsockname()[1]
        serials = []
        connections = []
        for _ in range(2):
            connection = await asyncio.open_connection("127.0.0.1", port, ssl=pki.client_context())
            connections.append(connection)
            serials.append(connection[1].get_extra_info("peercert")["serialNumber"])
            pki.server()
            await asyncio.to_thread(watch.look)
        for reader, writer in connections:
            writer.write(b"still here\n")
            assert await asyncio.wait_for(reader.readline(), 30) == b"still here\n"
            writer.close()
        server.close()
        return serials[0], serials[1]

    before, after = on_io(scenario())
    assert before != after


def test_the_watch_looks_again_and_again_until_it_is_cancelled(pki: Pki) -> None:
    async def scenario() -> None:
        tls, watch = watched(pki)
        before = tls.expires_at_s
        looked = asyncio.Event()

        async def look(function: object) -> None:
            pki.server(days=5)
            await asyncio.to_thread(function)  # type: ignore[arg-type]
            looked.set()

        task = asyncio.create_task(watch.run(0.001, look))
        await asyncio.wait_for(looked.wait(), 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert tls.expires_at_s > before

    on_io(scenario())
