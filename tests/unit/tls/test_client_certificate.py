"""mesh.tls.client_certificate: what is read of a certificate that a client has shown."""

from mesh.tls.client_certificate import ClientCertificate, read_certificate


def test_subject_and_names_are_read() -> None:
    shown = {
        "subject": ((("organizationName", "Shop"),), (("commonName", "alice"),)),
        "subjectAltName": (("DNS", "a.example"), ("URI", "spiffe://shop/a"), ("IP Address", "10.0.0.7")),
        "serialNumber": "0A",
    }
    assert read_certificate(shown) == ClientCertificate(
        "alice", ("DNS:a.example", "URI:spiffe://shop/a", "IP:10.0.0.7"), "Shop", "0A"
    )


def test_no_certificate_is_none() -> None:
    """`getpeercert` returns None in plain text, and an empty dict for one that was not verified."""
    assert read_certificate(None) is None
    assert read_certificate({}) is None


def test_a_certificate_without_names_is_still_one() -> None:
    assert read_certificate({"serialNumber": "01"}) == ClientCertificate(serial_number="01")
