"""The `ssl_*` options of a port: their checks and their message. Files are read by the gateways, on their nodes."""

from __future__ import annotations

from typing import Protocol

from mesh.options import option_checks
from mesh.tls.certificate_files import CertificateFiles, check_password_source
from mesh.v1 import control_pb2

_PATHS = ("ssl_keyfile", "ssl_certfile", "ssl_ca_certs")
_MODES = ("required", "optional")


class TlsOptions(Protocol):
    """The fields that HTTPOptions and gRPCOptions have in common."""

    @property
    def ssl_keyfile(self) -> str | None: ...
    @property
    def ssl_certfile(self) -> str | None: ...
    @property
    def ssl_keyfile_password(self) -> str | None: ...
    @property
    def ssl_ca_certs(self) -> str | None: ...
    @property
    def ssl_client_certificates(self) -> str: ...


def check(group: str, options: TlsOptions) -> None:
    """Raises TypeError or ValueError naming the option. `group`: "http_options" or "grpc_options"."""
    for name in _PATHS:
        path = getattr(options, name)
        if path is not None and not option_checks.text(f"{group}[{name!r}]", path):
            raise ValueError(f"{group}[{name!r}] must be the path of a file, got an empty string.")
    if (options.ssl_keyfile is None) != (options.ssl_certfile is None):
        given, missing = "ssl_keyfile", "ssl_certfile"
        if options.ssl_keyfile is None:
            given, missing = missing, given
        raise ValueError(f"{group}[{given!r}] needs {missing}: give both or neither.")
    if options.ssl_keyfile is None:
        for name in ("ssl_ca_certs", "ssl_keyfile_password"):
            if getattr(options, name) is not None:
                raise ValueError(f"{group}[{name!r}] needs ssl_keyfile and ssl_certfile.")
    if options.ssl_keyfile_password is not None:
        name = f"{group}['ssl_keyfile_password']"
        check_password_source(name, option_checks.text(name, options.ssl_keyfile_password))
    if options.ssl_client_certificates not in _MODES:
        raise ValueError(
            f"{group}['ssl_client_certificates'] must be one of {', '.join(_MODES)}, "
            f"got {options.ssl_client_certificates!r}."
        )


def to_message(options: TlsOptions) -> control_pb2.TlsFiles | None:
    """None for plain text."""
    if options.ssl_certfile is None:
        return None
    return control_pb2.TlsFiles(
        certfile=options.ssl_certfile,
        keyfile=options.ssl_keyfile or "",
        keyfile_password_source=options.ssl_keyfile_password or "",
        ca_certs=options.ssl_ca_certs or "",
        is_client_certificate_optional=options.ssl_client_certificates == "optional",
    )


def read_files(group: str, message: control_pb2.TlsFiles) -> CertificateFiles:
    """The files that the options of `group` name."""
    return CertificateFiles(
        options=group,
        certfile=message.certfile,
        keyfile=message.keyfile,
        password_source=message.keyfile_password_source,
        ca_certs=message.ca_certs,
        is_peer_optional=message.is_client_certificate_optional,
    )
