"""A certificate authority for development and tests: it signs certificates of servers, clients and links.

It needs the library cryptography. Nothing in production depends on this module.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from typing import Any

_CA_DAYS = 3650
_BACKDATED = datetime.timedelta(hours=1)
"""Certificates begin this much earlier, so that machines whose clocks are slow accept a new one."""
_PRIVATE, _PUBLIC = 0o600, 0o644


class Usage(Enum):
    """What a certificate is for."""

    SERVER = ("serverAuth",)
    CLIENT = ("clientAuth",)
    BOTH = ("serverAuth", "clientAuth")


@dataclass(frozen=True, slots=True)
class CertificatePaths:
    """A certificate and its key."""

    certfile: Path
    keyfile: Path

    @classmethod
    def of(cls, directory: Path, name: str) -> CertificatePaths:
        return cls(directory / f"{name}.crt", directory / f"{name}.key")

    @property
    def existing(self) -> list[Path]:
        return [path for path in (self.certfile, self.keyfile) if path.exists()]


class DevelopmentCa:
    """The authority in one directory: `ca.crt` and `ca.key`."""

    def __init__(self, directory: Path) -> None:
        """Use the authority there, or make one. Raises ImportError without cryptography, OSError, ValueError."""
        self._x509 = _cryptography()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self.paths = CertificatePaths.of(directory, "ca")
        self.is_new = not self.paths.existing
        if self.is_new:
            self._make()
        self._certificate, self._key = self._load()

    def __repr__(self) -> str:
        return f"<DevelopmentCa {self.directory}>"

    def issue(self, name: str, usage: Usage, hosts: Sequence[str], days: float) -> CertificatePaths:
        """Write `NAME.crt` and `NAME.key`, replacing what is there. `hosts`: DNS names and IP addresses."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        x509 = self._x509
        key = ec.generate_private_key(ec.SECP256R1())
        usages = {
            "serverAuth": x509.oid.ExtendedKeyUsageOID.SERVER_AUTH,
            "clientAuth": x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH,
        }
        builder = (
            self._builder(name, self._certificate.subject, key.public_key(), days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(x509, signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usages[each] for each in usage.value]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if hosts:
            names = x509.SubjectAlternativeName([_general_name(x509, host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        paths = CertificatePaths.of(self.directory, name)
        _write(paths, builder.sign(self._key, hashes.SHA256()), key)
        return paths

    def _make(self) -> None:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        x509 = self._x509
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "mesh development CA")])
        builder = (
            self._builder("mesh development CA", subject, key.public_key(), _CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(x509, signs_certificates=True), critical=True)
        )
        _write(self.paths, builder.sign(key, hashes.SHA256()), key)

    def _load(self) -> tuple[Any, Any]:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            certificate = self._x509.load_pem_x509_certificate(self.paths.certfile.read_bytes())
            return certificate, load_pem_private_key(self.paths.keyfile.read_bytes(), None)
        except ValueError as error:
            raise ValueError(f"{self.paths.certfile} and {self.paths.keyfile} are not an authority of ours.") from error

    def _builder(self, name: str, issuer: Any, public_key: Any, days: float) -> Any:
        x509, now = self._x509, datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)]))
            .issuer_name(issuer)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        )


def _write(paths: CertificatePaths, certificate: Any, key: Any) -> None:
    from cryptography.hazmat.primitives import serialization

    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    # The key first: a gateway that reads between the two keeps what it has until both belong together.
    _replace(paths.keyfile, pem, _PRIVATE)
    _replace(paths.certfile, certificate.public_bytes(serialization.Encoding.PEM), _PUBLIC)


def _replace(path: Path, content: bytes, mode: int) -> None:
    """At once, so that no reader sees half a file, and with its mode from the beginning."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _key_usage(x509: Any, *, signs_certificates: bool) -> Any:
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
        **dict.fromkeys(others, False),
    )


def _general_name(x509: Any, host: str) -> Any:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _cryptography() -> Any:
    try:
        from cryptography import x509
        from cryptography.x509 import oid
    except ImportError as error:
        raise ImportError("`mesh certs` needs the library cryptography: pip install 'raymesh[certs]'.") from error
    del oid
    return x509
