"""gateway.access.authenticator: open paths, the order of checks, and checks that fail."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.authenticator import NO_CREDENTIALS, Authenticator, OpenPaths
from gateway.access.certificate_names import name_of
from gateway.requests.routes import Refusal
from mesh.authentication import ClientCertificate, ClientRequest, Refused
from mesh.wire.identity import Identity

REQUEST = ClientRequest(path="/a")


@given(st.lists(st.sampled_from(["..", ".", "a", "b", "", "%2e%2e", "%2F"]), max_size=6))
def test_a_prefix_opens_nothing_that_can_lie_elsewhere(parts: list[str]) -> None:
    path = "/public/" + "/".join(parts)
    if path in OpenPaths(["/public/*"]):
        assert set(parts[:-1]) <= {"a", "b"}
        assert parts[-1:] in ([], ["a"], ["b"], [""])


def test_exact_paths_open_only_themselves() -> None:
    paths = OpenPaths(["/-/healthz"])
    assert "/-/healthz" in paths
    assert not [each for each in ("/-/healthz/", "/-/health", "/-/healthz?", "//-/healthz") if each in paths]
    assert "/anything" not in OpenPaths([])


class Answers:
    """A check that always answers the same."""

    def __init__(self, answer: Identity | Refused | None) -> None:
        self.answer = answer

    def check(self, request: ClientRequest) -> Identity | Refused | None:
        return self.answer


class Fails:
    def check(self, request: ClientRequest) -> Identity | Refused | None:
        raise RuntimeError("a defect")


def identify(*checks: Answers | Fails) -> object:
    return Authenticator(checks, None, OpenPaths([])).identify(REQUEST, lambda answer: None)


def test_the_first_check_that_knows_the_credentials_decides() -> None:
    alice, bob = Answers(Identity("alice")), Answers(Identity("bob"))
    assert identify(Answers(None), alice, bob) == Identity("alice")
    assert identify(Answers(Refused("no")), alice) == Refusal(16, "no")
    assert identify(Answers(None)) == NO_CREDENTIALS


def test_a_check_that_fails_lets_no_client_in(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once, and counted each time."""
    authenticator = Authenticator([Fails(), Answers(Identity("alice"))], None, OpenPaths([]))
    with caplog.at_level(logging.ERROR, "mesh.gateway"):
        for _ in range(3):
            assert isinstance(authenticator.identify(REQUEST, lambda answer: None), Refusal)
    assert authenticator.counts == {"identified": 0, "open": 0, "refused": 3, "failed": 3}
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        (ClientCertificate("alice", ("DNS:a.example", "URI:spiffe://shop/alice")), "spiffe://shop/alice"),
        (ClientCertificate("alice", ("DNS:a.example",)), "alice"),
        (ClientCertificate("", ("email:a@b.example",)), "a@b.example"),
        (ClientCertificate(), ""),
    ],
)
def test_a_certificate_names_its_client(certificate: ClientCertificate, name: str) -> None:
    assert name_of(certificate) == name
