"""`CertificateFiles`: the PEM files of one side of TLS, and errors that name the option and the file that is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_FILE_MAX_BYTES = 1024 * 1024
"""Size of one file. A bundle of all public authorities has a quarter of that."""
_FROM_FILE = "file:"


class CertificateError(ValueError):
    """Certificate files cannot be used. The text names the option, the file and what to do; it holds no secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFiles:
    """Paths on the node that reads them."""

    options: str
    """What names them, for errors: "grpc_options", or how the names of settings begin, "MESH_LINK_TLS_"."""
    certfile: str
    """The certificate, and behind it those between it and its authority."""
    keyfile: str
    """The private key of the certificate."""
    password_source: str = ""
    """Where the password of an encrypted key is: "file:PATH"; never the password itself."""
    ca_certs: str = ""
    """Authorities that sign the certificates of peers; empty: peers need none."""
    is_peer_optional: bool = False
    """With `ca_certs`: a peer may also come without a certificate."""

    @property
    def paths(self) -> tuple[str, ...]:
        """All files, which may change while they are in use."""
        password = self.password_source.removeprefix(_FROM_FILE)
        return tuple(path for path in (self.certfile, self.keyfile, self.ca_certs, password) if path)

    def read_password(self) -> bytes:
        """The password of the key, empty if there is none. Raises CertificateError."""
        path = self.password_source.removeprefix(_FROM_FILE)
        return self.read("ssl_keyfile_password", path).strip() if path else b""

    def read(self, option: str, path: str) -> bytes:
        """The content of one file. Raises CertificateError."""
        try:
            with Path(path).open("rb") as file:
                content = file.read(_FILE_MAX_BYTES + 1)
        except OSError as error:
            advice = "" if Path(path).is_absolute() else " The path is relative: give an absolute one."
            why = error.strerror or str(error)
            raise self.error(option, f"cannot read {path}: {why}.{advice} It has to be on every node") from error
        if len(content) > _FILE_MAX_BYTES:
            raise self.error(option, f"{path} is larger than {_FILE_MAX_BYTES} bytes, so it is not a PEM file of ours")
        return content

    def error(self, option: str, problem: str) -> CertificateError:
        """The error about an option; settings have the names of options without "ssl_"."""
        is_setting = self.options.isupper()
        name = f"{self.options}{option.removeprefix('ssl_').upper()}" if is_setting else f"{self.options}[{option!r}]"
        return CertificateError(f"{name}: {problem}.")


def check_password_source(name: str, source: str) -> None:
    """Raises ValueError for a password itself: the options of gateways are stored in the cluster and shown."""
    if not source.startswith(_FROM_FILE) or source == _FROM_FILE:
        raise ValueError(
            f"{name} must be 'file:PATH', which each gateway reads on its node: options are stored in the cluster and "
            "shown by `mesh status`, where no password may be."
        )
