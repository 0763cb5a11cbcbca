"""`CurrentTls`: the TLS of one side, listening or connecting, whose files may change meanwhile.

Each handshake asks for the context, which is a new one after each change: what was loaded into an old one, its
authorities and the sessions that it might resume, goes with it. Connections that are open keep the one they began with.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence

from mesh.tls.certificate_files import CertificateFiles
from mesh.tls.tls_context import LoadedCertificate


class CurrentTls:
    """A reloadable certificate for `FileWatch`."""

    def __init__(
        self,
        name: str,
        files: CertificateFiles,
        protocols: Sequence[str],
        make: Callable[[CertificateFiles, Sequence[str]], LoadedCertificate],
    ) -> None:
        """Reads no file; `reload` does. `protocols`: what ALPN offers. `make`: `server_context` or `client_context`."""
        self.name = name
        self.paths = files.paths
        self._files = files
        self._protocols = tuple(protocols)
        self._make = make
        self._present: LoadedCertificate | None = None
        self.loads = 0
        """How often files were taken over."""

    def __repr__(self) -> str:
        return f"<CurrentTls {self.name}: {', '.join(self.paths)}>"

    @property
    def expires_at_s(self) -> float:
        """Unix time at which the present certificate ends; 0 before it is loaded."""
        return 0.0 if self._present is None else self._present.expires_at_s

    def context(self) -> ssl.SSLContext:
        """For the next handshake."""
        if self._present is None:
            raise RuntimeError(f"{self!r} has not been loaded")
        return self._present.context

    def reload(self) -> None:
        """Use what the files hold now for new handshakes. Raises CertificateError, and is then as before."""
        self._present = self._make(self._files, self._protocols)
        self.loads += 1
