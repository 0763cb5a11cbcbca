"""The TLS between processes of different nodes, mutual, from files that settings name; none where they name none.

Every process shows the same kind of certificate, as server and as client: signed by the authority of the mesh, with one
name for all. Connections within a node use Unix sockets, or TLS where they go by TCP. The mesh token is asked for
either way.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable
from functools import cache

import grpc

from mesh.settings import settings
from mesh.tls.certificate_files import CertificateError, CertificateFiles
from mesh.tls.current_tls import CurrentTls
from mesh.tls.file_watch import FileWatch
from mesh.tls.tls_context import client_context, server_context
from mesh.wire.blocking_work import Work, run_blocking
from mesh.wire.io_thread import io_thread

_PROTOCOLS = ("h2",)


class LinkTls:
    """The certificate of this process. Made in a thread, because it reads files; used on the I/O loop."""

    def __init__(self, files: CertificateFiles, server_name: str) -> None:
        """`server_name`: what the certificates of all processes are made out to. Raises CertificateError."""
        self.server_name = server_name
        self.watch = FileWatch()
        self._files = files
        self._server = CurrentTls("certificate of links that come in", files, _PROTOCOLS, server_context)
        self._client = CurrentTls("certificate of links that go out", files, _PROTOCOLS, client_context)
        self.watch.add(self._server)
        self.watch.add(self._client)

    def __repr__(self) -> str:
        return f"<LinkTls {self._files.certfile} as {self.server_name}>"

    def listening(self) -> ssl.SSLContext:
        """For the next connection of another process."""
        return self._server.context()

    @property
    def connecting(self) -> ssl.SSLContext:
        """For the next connection to another process."""
        return self._client.context()

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """The same for a channel of grpc.aio, with the files as they are now."""
        key, certificate, authorities = self._pem()
        return grpc.ssl_channel_credentials(authorities, key, certificate)

    def server_credentials(self) -> grpc.ServerCredentials:
        """The same for a server of grpc.aio, which asks for the present files at each handshake."""
        loaded = self._server.loads

        def latest() -> grpc.ServerCertificateConfiguration | None:
            nonlocal loaded
            if loaded == self._server.loads:
                return None
            try:
                present = self._server.loads, self._grpc_configuration()
            except CertificateError:
                # They are being replaced again; the next handshake sees the outcome.
                return None
            loaded, configuration = present
            return configuration

        return grpc.dynamic_ssl_server_credentials(
            self._grpc_configuration(),
            latest,  # type: ignore[arg-type]  # None is documented: no change
            require_client_authentication=True,
        )

    def _grpc_configuration(self) -> grpc.ServerCertificateConfiguration:
        key, certificate, authorities = self._pem()
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authorities)

    def _pem(self) -> tuple[bytes, bytes, bytes]:
        files = self._files
        options = (("ssl_keyfile", files.keyfile), ("ssl_certfile", files.certfile), ("ssl_ca_certs", files.ca_certs))
        key, certificate, authorities = (files.read(option, path) for option, path in options)
        return key, certificate, authorities


@cache
def link_tls() -> LinkTls | None:
    """That of this process; None where links are plain. Blocks the first time, which raises ValueError if it fails.

    The files are watched from then on.
    """
    given = settings().link
    paths = {"CERTFILE": given.tls_certfile, "KEYFILE": given.tls_keyfile, "CA_CERTS": given.tls_ca_certs}
    if not any(paths.values()):
        return None
    missing = [f"MESH_LINK_TLS_{name}" for name, path in paths.items() if not path]
    if missing:
        raise ValueError(f"Links with TLS need all three files: set {' and '.join(missing)} too.")
    files = CertificateFiles(
        options="MESH_LINK_TLS_",
        certfile=given.tls_certfile,
        keyfile=given.tls_keyfile,
        ca_certs=given.tls_ca_certs,
    )
    made = LinkTls(files, given.tls_server_name)
    io_thread().spawn(made.watch.run(settings().gateway.files_interval_s, _in_thread), "watch certificates of links")
    return made


# A forked process has no I/O thread yet, which watches the files.
os.register_at_fork(after_in_child=link_tls.cache_clear)


def _in_thread(look: Callable[[], None]) -> Awaitable[None]:
    return run_blocking(Work.FILES, look)
