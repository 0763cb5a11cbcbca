"""TLS contexts made from files, after checks whose errors name the file: does the key belong, is the time right?

Every new context does one handshake with itself in memory. That is how its certificate is read and its dates are
checked without a library for certificates.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import NamedTuple

from mesh.tls.certificate_files import CertificateError, CertificateFiles

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Ciphers of TLS 1.2: forward secrecy and authenticated encryption, as HTTP/2 demands (RFC 9113 §9.2.2)."""

_NOT_YET_VALID, _EXPIRED = 9, 10  # X509_V_ERR_... of OpenSSL
_MAX_FLIGHTS = 10


class LoadedCertificate(NamedTuple):
    """A context that works, and when its certificate ends."""

    context: ssl.SSLContext
    expires_at_s: float
    """Unix time."""


def server_context(files: CertificateFiles, protocols: Sequence[str]) -> LoadedCertificate:
    """For accepting connections; `protocols` are offered by ALPN. Raises CertificateError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION
    if files.ca_certs:
        context.verify_mode = ssl.CERT_OPTIONAL if files.is_peer_optional else ssl.CERT_REQUIRED
        # A resumed session would not show its certificate again, though its authority may have been removed since.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
    return _load(context, files, protocols)


def client_context(files: CertificateFiles, protocols: Sequence[str]) -> LoadedCertificate:
    """For connecting, with a certificate of our own, to servers whose names are checked. Raises CertificateError."""
    return _load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), files, protocols)


def _load(context: ssl.SSLContext, files: CertificateFiles, protocols: Sequence[str]) -> LoadedCertificate:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(list(protocols))
    certificates = _load_own(context, files)
    if files.ca_certs:
        _load_authorities(context, files)
    return LoadedCertificate(context, _expiry(files, certificates))


def _load_own(context: ssl.SSLContext, files: CertificateFiles) -> bytes:
    """Load the certificate and its key; returns the PEM text of the first."""
    certificates = files.read("ssl_certfile", files.certfile)
    if b"-----BEGIN CERTIFICATE-----" not in certificates:
        raise files.error("ssl_certfile", f"{files.certfile} holds no certificate in PEM form")
    key = files.read("ssl_keyfile", files.keyfile)
    if b"PRIVATE KEY-----" not in key:
        raise files.error("ssl_keyfile", f"{files.keyfile} holds no private key in PEM form")
    password = files.read_password()

    def give_password() -> bytes:
        if not password:
            raise files.error("ssl_keyfile", f"{files.keyfile} is encrypted: give ssl_keyfile_password")
        return password

    try:
        context.load_cert_chain(files.certfile, files.keyfile, give_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = f"the key in {files.keyfile} does not belong to the certificate in {files.certfile}"
            raise files.error("ssl_keyfile", problem) from error
        if password:
            problem = f"{files.keyfile} cannot be read with that password ({error.reason})"
            raise files.error("ssl_keyfile_password", problem) from error
        problem = f"OpenSSL cannot use {files.certfile} with {files.keyfile} ({error.reason or error})"
        raise files.error("ssl_certfile", problem) from error
    except OSError as error:
        raise files.error("ssl_certfile", f"cannot read {files.certfile} and {files.keyfile}: {error}") from error
    return certificates


def _load_authorities(context: ssl.SSLContext, files: CertificateFiles) -> None:
    authorities = files.read("ssl_ca_certs", files.ca_certs)
    try:
        context.load_verify_locations(cadata=_pem(authorities))
    except (ssl.SSLError, ValueError) as error:
        raise files.error("ssl_ca_certs", f"{files.ca_certs} holds no certificates in PEM form") from error


def _pem(content: bytes) -> str:
    """As `ssl` takes it: comments between certificates may be in any encoding, and are left out."""
    return content.decode("ascii", "ignore")


def _expiry(files: CertificateFiles, certificates: bytes) -> float:
    """When the certificate ends. Raises CertificateError if it has ended or not begun."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certfile, files.keyfile, files.read_password)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        client.load_verify_locations(cadata=_pem(certificates))
        shown = _certificate_shown(server, client)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in (_NOT_YET_VALID, _EXPIRED):
            when = "has expired" if error.verify_code == _EXPIRED else "is not valid yet"
            problem = f"the certificate in {files.certfile} {when}; replace it, or correct this machine's clock"
            raise files.error("ssl_certfile", problem) from error
        raise files.error("ssl_certfile", f"clients refuse {files.certfile}: {error.verify_message}") from error
    except ssl.SSLError as error:
        problem = f"a handshake with {files.certfile} and {files.keyfile} fails ({error.reason or error})"
        raise files.error("ssl_certfile", problem) from error
    return float(ssl.cert_time_to_seconds(str(shown["notAfter"])))


def _certificate_shown(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, object]:
    """What `client` sees of `server`'s certificate after a handshake in memory. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(_MAX_FLIGHTS):
        for each in (asking, answering):
            try:
                each.do_handshake()
            except ssl.SSLWantReadError:
                continue
            if each is asking:
                return dict(asking.getpeercert() or {})
    raise CertificateError("A TLS handshake in memory did not end.")
