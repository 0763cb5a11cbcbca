"""Certificates for tests, made by the authority of `mesh certs` in a directory of the test."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from mesh.tls.certificate_files import CertificateFiles
from mesh.tls.development_ca import CertificatePaths, DevelopmentCa, Usage

LOCAL = ("localhost", "127.0.0.1")


class Pki:
    """One authority and what it signs."""

    def __init__(self, directory: Path) -> None:
        self.ca = DevelopmentCa(directory)

    @property
    def ca_certs(self) -> str:
        return str(self.ca.paths.certfile)

    def server(self, name: str = "server", days: float = 1) -> CertificatePaths:
        return self.ca.issue(name, Usage.SERVER, LOCAL, days)

    def client(self, name: str = "alice") -> CertificatePaths:
        return self.ca.issue(name, Usage.CLIENT, (), 1)

    def files(self, paths: CertificatePaths, *, ca_certs: str = "", is_peer_optional: bool = False) -> CertificateFiles:
        return CertificateFiles(
            options="grpc_options",
            certfile=str(paths.certfile),
            keyfile=str(paths.keyfile),
            ca_certs=ca_certs,
            is_peer_optional=is_peer_optional,
        )

    def credentials(self, client: CertificatePaths | None = None) -> grpc.ChannelCredentials:
        """For a stock client, with a certificate of its own if one is given."""
        roots = self.ca.paths.certfile.read_bytes()
        if client is None:
            return grpc.ssl_channel_credentials(roots)
        return grpc.ssl_channel_credentials(roots, client.keyfile.read_bytes(), client.certfile.read_bytes())

    def client_context(self, client: CertificatePaths | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca_certs)
        if client is not None:
            context.load_cert_chain(client.certfile, client.keyfile)
        return context


def serial_of(context: ssl.SSLContext, peer: ssl.SSLContext) -> str:
    """The serial number of the certificate that a server with `context` shows to a client with `peer`, in memory."""
    shown = handshake(context, peer)[0].getpeercert()
    assert shown is not None
    return str(shown["serialNumber"])


def handshake(
    server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """The client's and the server's end after a handshake in memory. Raises ssl.SSLError.

    `session`: of an earlier handshake of this client, which it offers to resume.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname="localhost", session=session)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [asking, answering]
    for _ in range(10):
        for each in list(waiting):
            try:
                each.do_handshake()
                waiting.remove(each)
            except ssl.SSLWantReadError:
                continue
        if not waiting:
            return asking, answering
    raise AssertionError("the handshake does not end")
