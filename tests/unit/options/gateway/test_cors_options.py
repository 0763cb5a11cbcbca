"""`http_options["cors"]`: what it takes, what it refuses, and its message."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.options.gateway import cors_options, gateway_options
from mesh.options.gateway.cors_options import CorsOptions


def test_origins_are_enough() -> None:
    options = cors_options.parse({"origins": ["https://app.example.com", "https://*.example.com"]})
    assert options is not None
    message = options.to_message()
    assert list(message.origins) == ["https://app.example.com", "https://*.example.com"]
    assert (list(message.headers), message.has_credentials, message.max_age_s) == (["*"], False, 7200)
    assert "POST" in message.methods


def test_gateways_get_them_with_the_http_options() -> None:
    request = gateway_options.parse(None, {"cors": {"origins": ["*"]}}, None)
    assert list(request.to_message().cors.origins) == ["*"]
    assert not gateway_options.parse(None, None, None).to_message().HasField("cors")
    assert gateway_options.HTTPOptions(cors=CorsOptions(origins=["null"])).cors == CorsOptions(origins=["null"])


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({}, ValueError, "needs 'origins'"),
        ([], TypeError, "must be a dict"),
        ({"origins": "https://app.example.com"}, TypeError, "list of strings"),
        ({"origins": []}, ValueError, "empty"),
        ({"origins": ["app.example.com"]}, ValueError, "a scheme, a host"),
        ({"origins": ["https://app.example.com/"]}, ValueError, "without a slash"),
        ({"origins": ["HTTPS://app.example.com"]}, ValueError, "lower case"),
        ({"origins": ["https://*"]}, ValueError, "a scheme, a host"),
        ({"origins": ["*"], "credentials": True}, ValueError, "name the origins"),
        ({"origins": ["*"], "credentials": "yes"}, TypeError, "True or False"),
        ({"origins": ["*"], "headers": ["x y"]}, ValueError, "not a name in HTTP"),
        ({"origins": ["*"], "methods": ["GET\r\n"]}, ValueError, "not a name in HTTP"),
        ({"origins": ["*"], "max_age_s": -1}, ValueError, "between 0 and"),
        ({"origins": ["*"], "origin": ["*"]}, (TypeError, ValueError), "origin"),
    ],
)
def test_what_is_wrong_is_named(given: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        cors_options.parse(given)
