"""Whom a request comes from when proxies have passed it on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.requests.trusted_proxies import TrustedProxies
from gateway.requests.web_encoding import address_of
from tests.unit.gateway.web_ends import web_request

PROXY = "ipv4:10.0.0.1:4711"


@pytest.mark.parametrize(
    ("trusted", "forwarded", "client"),
    [
        ("", "9.9.9.9", "10.0.0.1"),
        ("10.0.0.2", "9.9.9.9", "10.0.0.1"),
        ("10.0.0.1", "9.9.9.9", "9.9.9.9"),
        ("10.0.0.0/8", "6.6.6.6, 9.9.9.9, 10.0.0.7", "9.9.9.9"),
        ("*", "6.6.6.6, 9.9.9.9", "6.6.6.6"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.0/8", "9.9.9.9, unknown, 10.0.0.7", "10.0.0.7"),
        ("10.0.0.1", "", "10.0.0.1"),
    ],
)
def test_only_trusted_proxies_name_the_client(trusted: str, forwarded: str, client: str) -> None:
    """The last address counts that no trusted proxy has: what clients write themselves stands before it."""
    head = TrustedProxies(trusted).original(web_request(x_forwarded_for=forwarded))
    assert address_of(head.peer)[0] == client


@pytest.mark.parametrize(("trusted", "scheme"), [("", "ws"), ("10.0.0.1", "wss")])
def test_only_trusted_proxies_say_that_the_client_uses_tls(trusted: str, scheme: str) -> None:
    head = replace(web_request(x_forwarded_proto="http, https"), scheme="ws")
    assert TrustedProxies(trusted).original(head).scheme == scheme


def test_a_word_that_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match="proxy"):
        TrustedProxies("10.0.0.1, proxy.example")


@given(st.text(alphabet="0123456789.:,[] af", max_size=40))
def test_no_field_breaks_it(forwarded: str) -> None:
    head = web_request(x_forwarded_for=forwarded)
    host = address_of(TrustedProxies("*").original(head).peer)[0]
    assert host == "10.0.0.1" or host in forwarded
