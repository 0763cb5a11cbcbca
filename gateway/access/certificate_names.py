"""`CertificateNames`: the verified TLS certificate of a client as its identity."""

from __future__ import annotations

from mesh.authentication import ClientCertificate, ClientRequest
from mesh.wire.identity import Identity

_SPIFFE = "URI:spiffe://"


class CertificateNames:
    """Accepts every certificate that the authorities of the port have signed."""

    def __repr__(self) -> str:
        return "<CertificateNames>"

    def check(self, request: ClientRequest) -> Identity | None:
        """The client; None if it has shown no certificate, or one without a name."""
        certificate = request.certificate
        name = name_of(certificate) if certificate is not None else ""
        if certificate is None or not name:
            return None
        attributes = {
            "x509_common_name": certificate.common_name,
            "x509_subject_alternative_name": ", ".join(certificate.alternative_names),
            "x509_organization": certificate.organization,
        }
        return Identity(name, {key: value for key, value in attributes.items() if value})


def name_of(certificate: ClientCertificate) -> str:
    """Its SPIFFE id, else its common name, else its first alternative name without the kind; empty if it has none."""
    for each in certificate.alternative_names:
        if each.startswith(_SPIFFE):
            return each.removeprefix("URI:")
    alternative = certificate.alternative_names[0] if certificate.alternative_names else ""
    return certificate.common_name or alternative.partition(":")[2]
