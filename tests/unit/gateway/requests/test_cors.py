"""CORS: which pages may call, what a preflight is answered, and what a page may read."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.requests.cors import CorsPolicy, is_preflight, is_unasked
from tests.unit.fakes.fake_exchange import request

APP = b"https://app.example.com"


def preflight(policy: CorsPolicy, origin: str, asked: str = "x-tenant,content-type") -> dict[bytes, bytes]:
    fields = [("origin", origin), ("access-control-request-method", "POST"), ("access-control-request-headers", asked)]
    head = request("/shop.Store/Get", *fields, method="OPTIONS")
    assert is_preflight(head)
    return dict(policy.answer_preflight(head))


@pytest.mark.parametrize(
    ("pattern", "origin", "is_allowed"),
    [
        ("https://app.example.com", "https://app.example.com", True),
        ("https://app.example.com", "http://app.example.com", False),
        ("https://app.example.com", "https://app.example.com:444", False),
        ("https://app.example.com", "https://app.example.com.evil.net", False),
        ("https://*.example.com", "https://app.example.com", True),
        ("https://*.example.com", "https://a.b.example.com", True),
        ("https://*.example.com", "https://example.com", False),
        ("https://*.example.com", "https://.example.com", False),
        ("https://*.example.com", "https://evil.net/.example.com", False),
        ("https://*.example.com", "https://evil.net:1@.example.com", False),
        ("https://*.example.com", "https://evilexample.com", False),
        ("*", "https://anything.net", True),
        ("null", "null", True),
        ("https://app.example.com", "null", False),
    ],
)
def test_origins_are_allowed_as_the_operator_names_them(pattern: str, origin: str, is_allowed: bool) -> None:
    policy = CorsPolicy(origins=[pattern])
    assert policy.allows(origin.encode()) is is_allowed
    assert (b"access-control-allow-origin" in preflight(policy, origin)) is is_allowed
    assert bool(dict(policy.response_fields(origin.encode(), [])).get(b"access-control-allow-origin")) is is_allowed


def test_a_preflight_says_what_is_allowed() -> None:
    policy = CorsPolicy(origins=[APP.decode()], methods=["GET", "POST"], max_age_s=60)
    assert preflight(policy, APP.decode()) == {
        b"vary": b"origin, access-control-request-method, access-control-request-headers",
        b"access-control-allow-origin": APP,
        b"access-control-allow-methods": b"GET, POST",
        b"access-control-allow-headers": b"x-tenant,content-type",
        b"access-control-max-age": b"60",
    }
    assert preflight(policy, "https://evil.net").keys() == {b"vary"}


def test_named_headers_are_all_that_a_page_may_send() -> None:
    policy = CorsPolicy(origins=["*"], headers=["content-type", "connect-protocol-version"])
    allowed = preflight(policy, "https://a.net", "x-tenant")[b"access-control-allow-headers"]
    assert allowed == b"content-type, connect-protocol-version"


@given(st.text(max_size=30))
def test_what_is_no_list_of_names_is_not_sent_back(asked: str) -> None:
    fields = [("origin", "https://a.net"), ("access-control-request-method", "POST")]
    head = request("/", *fields, ("access-control-request-headers", asked), method="OPTIONS")
    for name, value in CorsPolicy(origins=["*"]).answer_preflight(head):
        assert b"\r" not in value
        assert b"\n" not in value
        assert name != b"access-control-allow-headers" or value == asked.encode()


def test_any_origin_is_one_answer_for_all_unless_credentials_are_sent() -> None:
    assert CorsPolicy(origins=["*"]).response_fields(APP, []) == [(b"access-control-allow-origin", b"*")]
    assert CorsPolicy(origins=[APP.decode()], has_credentials=True).response_fields(APP, []) == [
        (b"vary", b"origin"),
        (b"access-control-allow-origin", APP),
        (b"access-control-allow-credentials", b"true"),
    ]


def test_a_page_may_read_all_fields_of_an_answer() -> None:
    fields = [(b"content-type", b"a"), (b"x-a", b"1"), (b"x-a", b"2"), (b"trailer-x", b"3"), (b"set-cookie", b"s")]
    added = dict(CorsPolicy(origins=["*"]).response_fields(APP, fields))
    assert added[b"access-control-expose-headers"] == b"trailer-x, x-a"


def test_what_user_code_decides_about_origins_stays() -> None:
    assert CorsPolicy(origins=["*"]).response_fields(APP, [(b"access-control-allow-origin", b"https://x")]) == []


def test_answers_to_other_origins_say_that_they_depend_on_it() -> None:
    """So that a shared cache does not give them to pages that may read them."""
    assert CorsPolicy(origins=[APP.decode()]).response_fields(b"https://evil.net", []) == [(b"vary", b"origin")]


@pytest.mark.parametrize("missing", ["origin", "access-control-request-method", "method"])
def test_other_requests_are_no_preflights(missing: str) -> None:
    fields = [("origin", "https://a.net"), ("access-control-request-method", "POST")]
    head = request(
        "/", *(each for each in fields if each[0] != missing), method="GET" if missing == "method" else "OPTIONS"
    )
    assert not is_preflight(head)


@pytest.mark.parametrize(
    ("origin", "host", "site", "is_from_elsewhere"),
    [
        ("http://mesh:8000", "mesh:8000", "", False),
        ("http://Mesh:8000", "mesh:8000", "", False),
        ("http://mesh:8000", "mesh:9000", "", True),
        ("https://mesh", "mesh", "", False),
        ("https://mesh", "mesh:443", "", False),
        ("http://mesh", "mesh:443", "", True),
        ("http://[::1]:80", "[::1]", "", False),
        ("https://evil.net", "mesh", "", True),
        ("https://mesh.evil.net", "mesh", "", True),
        ("null", "", "", True),
        ("", "mesh", "", False),
        ("https://app.example.com", "internal:8000", "same-origin", False),
        ("https://app.example.com", "internal:8000", "none", False),
        ("https://app.example.com", "app.example.com", "same-site", True),
        ("https://app.example.com", "app.example.com", "cross-site", True),
    ],
)
def test_a_page_of_another_origin_is_known_by_what_browsers_add(
    origin: str, host: str, site: str, is_from_elsewhere: bool
) -> None:
    """A proxy may replace the host, but not what the browser says of the site."""
    fields = [("host", host), ("origin", origin), ("sec-fetch-site", site)]
    handshake = request("/shop.Store/Get", *(each for each in fields if each[1]), method="GET")
    assert is_unasked(replace(handshake, scheme="ws")) is is_from_elsewhere
    assert not is_unasked(handshake), "a page may get what it cannot read"


@pytest.mark.parametrize(
    ("content_type", "is_sent_unasked"),
    [
        ("", True),
        ("text/plain;charset=UTF-8", True),
        ("multipart/form-data; boundary=x", True),
        ("application/x-www-form-urlencoded", True),
        ("application/json", False),
        ("application/proto", False),
        ("application/grpc-web-text", False),
    ],
)
def test_bodies_of_forms_need_no_preflight(content_type: str, is_sent_unasked: bool) -> None:
    fields = [("host", "mesh"), ("origin", "https://evil.net"), ("content-type", content_type)]
    assert is_unasked(request("/shop.Store/Get", *(each for each in fields if each[1]))) is is_sent_unasked
