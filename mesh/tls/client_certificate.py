"""`ClientCertificate`: what a verified certificate says of the peer that has shown it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """The certificate of a TLS client; its signature, authority and dates were checked in the handshake."""

    common_name: str = ""
    """The common name of its subject; empty if it has none."""
    alternative_names: tuple[str, ...] = ()
    """Names with their kinds, for instance "DNS:a.example", "URI:spiffe://a/b", "email:a@b.example", "IP:10.0.0.7"."""
    organization: str = ""
    serial_number: str = ""
    """In hexadecimal, as the authority lists it."""


def read_certificate(shown: Mapping[str, Any] | None) -> ClientCertificate | None:
    """From what `SSLObject.getpeercert()` returns; None if the peer has shown no certificate."""
    if not shown:
        return None
    subject = {str(key): str(value) for names in shown.get("subject", ()) for key, value in names}
    alternatives = ((_KINDS.get(str(kind), str(kind)), value) for kind, value, *_ in shown.get("subjectAltName", ()))
    return ClientCertificate(
        subject.get("commonName", ""),
        tuple(f"{kind}:{value}" for kind, value in alternatives),
        subject.get("organizationName", ""),
        str(shown.get("serialNumber", "")),
    )


_KINDS = {"IP Address": "IP"}
"""OpenSSL's name for people, and the one in its configuration files."""
