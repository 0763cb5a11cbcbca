"""`ClientTls`: the context with which a process connects, replaced when its files change."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from mesh.tls.certificate_files import CertificateFiles
from mesh.tls.tls_context import LoadedCertificate, client_context


class ClientTls:
    """A reloadable certificate for `FileWatch`."""

    def __init__(self, name: str, files: CertificateFiles, protocols: Sequence[str]) -> None:
        """Nothing is read before `reload`. `protocols`: offered by ALPN."""
        self.name = name
        self.paths = files.paths
        self._files = files
        self._protocols = tuple(protocols)
        self._present: LoadedCertificate | None = None

    @property
    def context(self) -> ssl.SSLContext:
        """For the next connection."""
        if self._present is None:
            raise RuntimeError(f"the {self.name} has not been loaded")
        return self._present.context

    def reload(self) -> None:
        """Use what the files hold now for new connections. Raises CertificateError, and is then as before."""
        self._present = client_context(self._files, self._protocols)
