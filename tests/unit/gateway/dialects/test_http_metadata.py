"""Metadata of calls in the header fields of HTTP."""

from __future__ import annotations

import pytest

from gateway.dialects.http_metadata import read_http_invocation, write_fields


def test_all_fields_but_those_of_http_and_of_the_protocol_are_metadata() -> None:
    of_http = ["accept", "accept-encoding", "connection", "content-type", "content-length", "host", "te", "upgrade"]
    of_http += ["sec-fetch-mode", "if-none-match", "access-control-request-method", "grpc-timeout", "x-own"]
    passed = [
        ("user-agent", "a"),
        ("origin", "https://a.net"),
        ("authorization", "b"),
        ("x-many", "1"),
        ("x-many", "2"),
    ]
    fields = [(name.encode(), b"x") for name in of_http] + [(name.encode(), text.encode()) for name, text in passed]
    invocation = read_http_invocation([*fields, (b"x-key-bin", b"AAE")], frozenset({b"x-own"}))
    assert invocation.passed_on == (*passed, ("x-key-bin", b"\0\1"))


@pytest.mark.parametrize("name", [b"request_id", b"x-request-id", b"X-Request-Id".lower(), b"request-id"])
def test_the_request_id_may_be_spelt_as_in_http_or_grpc(name: bytes) -> None:
    assert read_http_invocation([(name, b"r1")]).request_id == "r1"


@pytest.mark.parametrize("name", [b"multiplexed_model_id", b"serve_multiplexed_model_id", b"multiplexed-model-id"])
def test_so_may_the_model(name: bytes) -> None:
    assert read_http_invocation([(name, b"m1")]).multiplexed_model_id == "m1"


def test_the_application_and_the_trace_are_read() -> None:
    invocation = read_http_invocation([(b"application", b"shop"), (b"traceparent", b"t"), (b"tracestate", b"s")])
    assert (invocation.application, invocation.traceparent, invocation.tracestate) == ("shop", "t", "s")


def test_binary_values_have_to_be_base64() -> None:
    with pytest.raises(ValueError, match="x-bin"):
        read_http_invocation([(b"x-bin", b"?")])


def test_metadata_become_fields() -> None:
    assert write_fields((("x-a", "1"), ("x-b-bin", b"\xfb\xff")), b"trailer-") == [
        (b"trailer-x-a", b"1"),
        (b"trailer-x-b-bin", b"+/8"),
    ]
