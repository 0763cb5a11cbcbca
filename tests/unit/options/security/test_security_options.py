"""mesh.options.security: who may call, how often, with which certificates; what is wrong is named."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.options.gateway.gateway_options import parse


def grpc(**options: Any) -> Any:
    return parse(None, None, options).to_message()


def test_tls_files_are_paths_in_the_message() -> None:
    message = grpc(ssl_certfile="a.crt", ssl_keyfile="a.key", ssl_ca_certs="ca.crt").grpc_tls
    assert (message.certfile, message.keyfile, message.ca_certs) == ("a.crt", "a.key", "ca.crt")
    assert not message.is_client_certificate_optional
    assert not grpc().HasField("grpc_tls")


def test_a_function_is_the_short_form() -> None:
    message = grpc(authentication="shop.access:check").authentication
    assert (message.function, message.timeout_s, message.concurrent_max) == ("shop.access:check", 5.0, 1000)
    assert list(message.open_paths) == ["/grpc.health.v1.Health/*", "/-/healthz"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "needs at least one of"),
        (3, "import path or a dict"),
        ("no path", "import path like"),
        ({"function": "a:b:c"}, "import path like"),
        ({"keysfile": "x"}, "Did you mean 'keys_file'"),
        ({"keys_file": "x", "open_paths": "/a"}, "list of strings"),
        ({"keys_file": "x", "open_paths": ["a"]}, "begin with '/'"),
        ({"keys_file": "x", "timeout_s": 0}, "timeout_s"),
        ({"keys_file": "x", "concurrent_max": 0}, "concurrent_max"),
        ({"jwt": {}}, "needs keys_file"),
        ({"jwt": "x"}, "must be a dict"),
        ({"jwt": {"keys_file": "x", "algorithms": ["none"]}}, "must be some of"),
        ({"jwt": {"keys_file": "x", "algorithms": []}}, "must be some of"),
        ({"jwt": {"keys_file": "x", "algorithms": ["HS256", "RS256"]}}, "mixes"),
        ({"jwt": {"keys_file": "x", "leeway_s": -1}}, "leeway_s"),
        ({"certificates": True}, "needs ssl_ca_certs"),
    ],
)
def test_what_is_wrong_with_authentication_is_named(given: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        grpc(authentication=given)
    assert "authentication" in str(caught.value)


def test_limits_come_in_the_order_of_their_keys() -> None:
    """So that equal options are equal messages."""
    message = grpc(limits_per_identity={"b": {"rate_per_s": 2.5}, "*": {"concurrent": 3}})
    first, second = message.identity_limits
    assert (first.key, first.concurrent_max, first.rate_per_s) == ("*", 3, 0)
    assert (second.key, second.rate_per_s, second.burst, second.concurrent_max) == ("b", 2.5, 3, 0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "must be a dict"),
        ({"a": 3}, "must be a dict"),
        ({"a": {}}, "needs rate_per_s or concurrent"),
        ({"a": {"rate": 3}}, "is unknown"),
        ({"a": {"rate_per_s": 0}}, "more than 0"),
        ({"a": {"rate_per_s": 1, "burst": 0.5}}, "at least 1"),
        ({"a": {"concurrent": 1, "burst": 5}}, "needs rate_per_s"),
        ({"a": {"concurrent": 0}}, "at least 1"),
        ({3: {"concurrent": 1}}, "must be a string"),
    ],
)
def test_what_is_wrong_with_limits_is_named(given: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        grpc(limits_per_method=given)
    assert "limits_per_method" in str(caught.value)
