"""mesh.tls.tls_context: contexts from files, and errors that name the option and the file."""

from __future__ import annotations

import ssl
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.tls.certificate_files import CertificateError, CertificateFiles, check_password_source
from mesh.tls.tls_context import server_context
from tests.unit.fakes.certificates import Pki, handshake

PASSWORD = "correct-horse"


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki")


def failure(files: CertificateFiles) -> str:
    with pytest.raises(CertificateError) as caught:
        server_context(files, ["h2"])
    return str(caught.value)


def test_a_context_offers_http2_over_modern_tls_only(pki: Pki) -> None:
    context = server_context(pki.files(pki.server()), ["h2", "http/1.1"]).context
    client = pki.client_context()
    client.set_alpn_protocols(["http/1.1", "h2"])
    asking, _ = handshake(context, client)
    assert (asking.selected_alpn_protocol(), asking.version()) == ("h2", "TLSv1.3")
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    asking, _ = handshake(context, client)
    name, version, bits = asking.cipher() or ("", "", 0)
    assert version == "TLSv1.2"
    assert name.startswith("ECDHE")
    assert bits >= 128


def test_old_ciphers_of_tls_1_2_are_refused(pki: Pki) -> None:
    """RFC 9113 §9.2.2 forbids ciphers without forward secrecy or authenticated encryption."""
    context = server_context(pki.files(pki.server()), ["h2"]).context
    client = pki.client_context()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers("ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA")
    with pytest.raises(ssl.SSLError):
        handshake(context, client)


def test_the_end_of_the_certificate_is_known(pki: Pki) -> None:
    left_s = server_context(pki.files(pki.server(days=2)), ["h2"]).expires_at_s - time.time()
    assert 2 * 86400 - 120 < left_s <= 2 * 86400


def test_a_missing_file_is_named_with_its_option(pki: Pki, tmp_path: Path) -> None:
    files = pki.files(pki.server())
    text = failure(replace(files, certfile=str(tmp_path / "no.crt")))
    assert "grpc_options['ssl_certfile']" in text
    assert f"cannot read {tmp_path}/no.crt: No such file" in text
    assert "every node" in text
    assert "grpc_options['ssl_keyfile']" in failure(replace(files, keyfile=str(tmp_path / "no.key")))
    assert "grpc_options['ssl_ca_certs']" in failure(replace(files, ca_certs=str(tmp_path / "no.crt")))
    assert "give an absolute one" in failure(replace(files, certfile="certs/no.crt"))


def test_a_key_of_another_certificate_is_refused(pki: Pki) -> None:
    mine, other = pki.server(), pki.server("other")
    text = failure(replace(pki.files(mine), keyfile=str(other.keyfile)))
    belongs = f"the key in {other.keyfile} does not belong to the certificate in {mine.certfile}."
    assert text == f"grpc_options['ssl_keyfile']: {belongs}"


def test_an_expired_certificate_is_refused(pki: Pki) -> None:
    paths = pki.server(days=-0.01)
    assert f"the certificate in {paths.certfile} has expired" in failure(pki.files(paths))


def test_files_that_hold_something_else_are_refused(pki: Pki, tmp_path: Path) -> None:
    files, text = pki.files(pki.server()), tmp_path / "text"
    text.write_text("hello")
    assert f"{text} holds no certificate" in failure(replace(files, certfile=str(text)))
    assert f"{text} holds no private key" in failure(replace(files, keyfile=str(text)))
    assert f"{text} holds no certificates" in failure(replace(files, ca_certs=str(text)))
    text.write_text("-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n")
    assert "OpenSSL cannot use" in failure(replace(files, certfile=str(text)))
    text.write_bytes(b"x" * (2**20 + 1))
    assert "is larger than" in failure(replace(files, certfile=str(text)))


def test_comments_between_certificates_may_be_in_any_encoding(pki: Pki, tmp_path: Path) -> None:
    """Bundles of authorities name them so, as "NetLock Arany (Class Gold) Főtanúsítvány"."""
    files = pki.files(pki.server(), ca_certs=str(pki.ca.paths.certfile))
    for path in (files.certfile, files.ca_certs):
        certificate = Path(path).read_bytes()
        Path(path).write_bytes("# Főtanúsítvány\n".encode() + certificate + b"# T\xdcB\xddTAK in Latin-5\n")
    assert server_context(files, ["h2"]).expires_at_s > 0
    Path(files.ca_certs).write_bytes(b"0\x82\x01\xff")
    assert f"{files.ca_certs} holds no certificates in PEM form" in failure(files)


def encrypted(pki: Pki, password: str = PASSWORD) -> CertificateFiles:
    from cryptography.hazmat.primitives import serialization

    files = pki.files(pki.server())
    key = serialization.load_pem_private_key(Path(files.keyfile).read_bytes(), None)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password.encode()),
    )
    Path(files.keyfile).write_bytes(pem)
    return files


@pytest.mark.parametrize("password", [PASSWORD, "Schlüssel für Zürich"])
def test_the_password_of_a_key_comes_from_a_file(pki: Pki, tmp_path: Path, password: str) -> None:
    files, source = encrypted(pki, password), tmp_path / "password"
    source.write_text(f"{password}\n", encoding="utf-8")
    with_password = replace(files, password_source=f"file:{source}")
    assert server_context(with_password, ["h2"]).expires_at_s > 0
    assert str(source) in with_password.paths


def test_a_missing_or_wrong_password_is_an_error_that_does_not_show_it(pki: Pki, tmp_path: Path) -> None:
    """Without a password OpenSSL would ask on the terminal."""
    files, source = encrypted(pki), tmp_path / "password"
    assert f"{files.keyfile} is encrypted: give ssl_keyfile_password" in failure(files)
    source.write_text("battery-staple")
    text = failure(replace(files, password_source=f"file:{source}"))
    assert "cannot be read with that password" in text
    assert "battery-staple" not in text
    assert "['ssl_keyfile_password']: cannot read" in failure(replace(files, password_source=f"file:{source}.no"))


def test_a_password_itself_is_no_option() -> None:
    """The options are stored in the cluster and shown by `mesh status`."""
    for source in (PASSWORD, "file:"):
        with pytest.raises(ValueError, match="must be 'file:PATH'") as caught:
            check_password_source("grpc_options['ssl_keyfile_password']", source)
        assert PASSWORD not in str(caught.value)
