"""`ServerTls`: the TLS of one listener, whose certificate may be replaced while it listens.

A listener takes one context and keeps it. So it gets one that hands every handshake over to the present one, in the
callback for the server's name, which OpenSSL calls for each client, also for those that send no name. Connections that
are open keep the context they began with.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from mesh.tls.certificate_files import CertificateFiles
from mesh.tls.tls_context import LoadedCertificate, server_context


class ServerTls:
    """A reloadable certificate for `FileWatch`, and the context for listeners."""

    def __init__(self, name: str, files: CertificateFiles, protocols: Sequence[str]) -> None:
        """Reads no file; `reload` does. `protocols`: what ALPN offers."""
        self.name = name
        self.paths = files.paths
        self._files = files
        self._protocols = tuple(protocols)
        self._present: LoadedCertificate | None = None
        self.loads = 0
        """How often files were taken over."""
        self._listening: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        return f"<ServerTls {self.name}: {', '.join(self.paths)}>"

    @property
    def expires_at_s(self) -> float:
        """Unix time at which the present certificate ends; 0 before it is loaded."""
        return 0.0 if self._present is None else self._present.expires_at_s

    @property
    def context(self) -> ssl.SSLContext:
        """For listeners; it stays the same object."""
        if self._listening is None:
            raise RuntimeError(f"{self!r} has not been loaded")
        return self._listening

    def reload(self) -> None:
        """Use what the files hold now for new handshakes. Raises CertificateError, and is then as before."""
        self._present = server_context(self._files, self._protocols)
        self.loads += 1
        if self._listening is None:
            # How peers are verified is taken from the context that a connection begins with.
            self._listening = server_context(self._files, self._protocols).context
            self._listening.sni_callback = self._hand_over

    def _hand_over(self, connection: ssl.SSLObject, name: str | None, listening: ssl.SSLContext) -> None:
        del name, listening
        if self._present is not None:
            connection.context = self._present.context
