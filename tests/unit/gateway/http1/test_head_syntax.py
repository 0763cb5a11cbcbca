"""Heads of requests: what they mean, and every way to be wrong (RFC 9112)."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http1.head_syntax import Origin, ReceivedHead, check_incomplete
from gateway.http1.http1_limits import Http1Error, Http1Limits
from gateway.http1.http1_reader import Http1Reader
from gateway.requests.end_to_end_fields import FORWARDED

LIMITS = Http1Limits()


def read(text: str | bytes, limits: Http1Limits = LIMITS, *, is_tls: bool = False) -> ReceivedHead:
    block = text.encode("latin-1") if isinstance(text, str) else text
    reader = Http1Reader(limits, Origin(peer="ipv4:10.0.0.1:1", is_tls=is_tls))
    reader.feed(block + b"\r\n")
    received = reader.read_head()
    assert received is not None
    return received


def status_of(text: str | bytes, limits: Http1Limits = LIMITS) -> int:
    with pytest.raises(Http1Error) as caught:
        read(text, limits)
    return caught.value.status


def test_a_head_in_full() -> None:
    received = read("POST /a%20b?x=1&y=?2 HTTP/1.1\r\nHost: shop:80\r\nX-A:  b\tc  \r\nContent-Length: 5\r\n")
    head = received.head
    assert (head.method, head.path, head.query) == ("POST", "/a%20b", b"x=1&y=?2")
    assert head.fields == [(b"host", b"shop:80"), (b"x-a", b"b\tc"), (b"content-length", b"5")]
    assert (head.scheme, head.http_version, head.peer) == ("http", "1.1", "ipv4:10.0.0.1:1")
    assert (head.content_length, head.has_body, received.lines.is_chunked) == (5, True, False)
    assert received.keeps_alive
    assert not received.lines.expects_continue


def test_a_request_without_body_has_certainly_none() -> None:
    assert read("GET / HTTP/1.1\r\nhost: a\r\n").head.has_body is False
    assert read("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n").head.has_body is False


def test_fields_about_the_connection_are_not_shown_to_dialects() -> None:
    text = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nte: trailers\r\nexpect: 100-continue\r\nkeep-alive: x\r\n"
    received = read(text)
    assert received.head.fields == [(b"host", b"a")]
    assert (received.keeps_alive, received.lines.takes_trailers, received.lines.expects_continue) == (False, True, True)


def test_fields_that_the_field_connection_names_are_not_shown_to_dialects() -> None:
    """RFC 9110 §7.6.1: they are for this connection. But no client hides what a proxy in front has added."""
    text = "GET / HTTP/1.1\r\nhost: a\r\nx-hop: 1\r\nx-end: 2\r\nx-forwarded-for: 10.0.0.1\r\n"
    options = "connection: close, X-Hop\r\nconnection: Host, X-Forwarded-For\r\n"
    received = read(text + options)
    assert received.head.fields == [(b"host", b"a"), (b"x-end", b"2"), (b"x-forwarded-for", b"10.0.0.1")]
    assert not received.keeps_alive


@pytest.mark.parametrize("name", sorted(FORWARDED))
def test_no_client_hides_that_a_proxy_speaks_for_it(name: bytes) -> None:
    """`/-/connections` answers only clients on the node that no proxy speaks for."""
    received = read(f"GET / HTTP/1.1\r\nhost: a\r\n{name.decode()}: 10.0.0.1\r\nconnection: {name.decode()}\r\n")
    assert (name, b"10.0.0.1") in received.head.fields


@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        ("http://shop:81/a?b", "/a", b"b", b"shop:81"),
        ("HTTP://shop", "/", b"", b"shop"),
        ("https://shop?b", "/", b"b", b"shop"),
        ("*", "*", b"", b"a"),
    ],
)
def test_targets_of_other_forms(target: str, path: str, query: bytes, host: bytes) -> None:
    """The host of an absolute target replaces that of the field (RFC 9112 §3.2.2)."""
    head = read(f"OPTIONS {target} HTTP/1.1\r\nhost: a\r\n").head
    assert (head.path, head.query, head.by_name[b"host"]) == (path, query, host)


def test_http_1_0_keeps_the_connection_only_if_asked() -> None:
    assert not read("GET / HTTP/1.0\r\n").keeps_alive
    assert read("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n").keeps_alive
    assert read("GET / HTTP/1.0\r\n").head.http_version == "1.0"


def test_the_same_fields_behind_other_request_lines() -> None:
    """What was made of the fields is used again, and is still checked against each request line."""
    reader = Http1Reader(LIMITS, Origin())
    fields = b"host: a\r\ntransfer-encoding: chunked\r\n\r\n"
    for path in (b"/a", b"/b"):
        reader.feed(b"POST %b HTTP/1.1\r\n" % path + fields + b"0\r\n\r\n")
        received = reader.read_head()
        assert received is not None
        assert (received.head.path, received.head.fields) == (path.decode(), [(b"host", b"a")])
        assert reader.read_body() == b""
    reader.feed(b"POST / HTTP/1.0\r\n" + fields)
    with pytest.raises(Http1Error):
        reader.read_head()


def test_a_websocket_handshake_has_its_scheme() -> None:
    text = "GET / HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n"
    assert (read(text).head.scheme, read(text, is_tls=True).head.scheme) == ("ws", "wss")
    assert read(text).head.is_websocket
    assert status_of(text.replace("GET", "POST")) == 400
    assert status_of(text + "content-length: 1\r\n") == 400


def test_other_upgrades_are_ignored() -> None:
    """RFC 9110 §7.8: a server may. HTTP/2 is spoken to those who begin with its preface."""
    text = "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\n"
    assert read(text).head.scheme == "http"


SMUGGLING = {
    "content-length and transfer-encoding": "content-length: 5\r\ntransfer-encoding: chunked\r\n",
    "two lengths": "content-length: 5\r\ncontent-length: 6\r\n",
    "the same length twice": "content-length: 5\r\ncontent-length: 5\r\n",
    "a list of lengths": "content-length: 5, 5\r\n",
    "a signed length": "content-length: +5\r\n",
    "a negative length": "content-length: -5\r\n",
    "a length in hex": "content-length: 0x5\r\n",
    "a length in other digits": "content-length: \xb2\r\n",
    "a length with an underscore": "content-length: 1_0\r\n",
    "an empty length": "content-length:\r\n",
    "a length that overflows": "content-length: 99999999999999999999\r\n",
    "a space before the colon": "content-length : 5\r\n",
    "a tab before the colon": "content-length\t: 5\r\n",
    "a folded line": "x-a: b\r\n c\r\n",
    "a folded length": "content-length:\r\n 5\r\n",
    "a line that begins with a space": " content-length: 5\r\n",
    "a bare line feed": "x-a: b\ncontent-length: 5\r\n",
    "a bare carriage return": "x-a: b\rcontent-length: 5\r\n",
    "a null byte in a value": "x-a: b\0c\r\n",
    "a null byte in a name": "x\0: b\r\n",
    "a control character in a value": "x-a: b\x07\r\n",
    "a line without a colon": "nothing\r\n",
    "an empty name": ": b\r\n",
    "a name with a space": "x a: b\r\n",
    "a name with other letters": "x-\xe4: b\r\n",
    "chunked that is not the last": "transfer-encoding: chunked, gzip\r\n",
    "chunked twice": "transfer-encoding: chunked, chunked\r\n",
    "chunked in two fields": "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
    "chunked with something behind it": "transfer-encoding: chunked;x\r\n",
    "chunked behind a vertical tab": "transfer-encoding: \x0bchunked\r\n",
    "an identity coding": "transfer-encoding: identity\r\n",
    "an empty coding": "transfer-encoding:\r\n",
    "two hosts": "host: b\r\n",
}


@pytest.mark.parametrize("lines", SMUGGLING.values(), ids=SMUGGLING.keys())
def test_what_two_readers_could_read_in_two_ways_is_refused(lines: str) -> None:
    assert status_of(f"POST / HTTP/1.1\r\nhost: a\r\n{lines}") == 400


@pytest.mark.parametrize("host", ["a b", "a/b", "a@b", "a\\b", "[::1", "a:b", "a:123456", "a,b c", "a?b", "a#b", "<a>"])
def test_an_invalid_host_is_refused(host: str) -> None:
    assert status_of(f"GET / HTTP/1.1\r\nhost: {host}\r\n") == 400


@pytest.mark.parametrize("host", ["a b", "a@b", "a\\b", "[::1", "a:b", "a:123456", "a#b", "<a>"])
def test_an_invalid_host_in_a_target_is_refused(host: str) -> None:
    assert status_of(f"GET http://{host}/ HTTP/1.1\r\nhost: a\r\n") == 400


@pytest.mark.parametrize("host", ["a", "a.b-c_d:80", "[::1]:8000", "127.0.0.1", "a%20b", ""])
def test_valid_hosts(host: str) -> None:
    assert read(f"GET / HTTP/1.1\r\nhost: {host}\r\n").head.by_name[b"host"] == host.encode()


def test_a_request_of_http_1_1_needs_a_host() -> None:
    assert status_of("GET / HTTP/1.1\r\n") == 400


LINES = {
    "GET /": 400,
    "GET / HTTP/1.1 ": 400,
    "GET  / HTTP/1.1": 400,
    " GET / HTTP/1.1": 400,
    "GET /a b HTTP/1.1": 400,
    "GET\t/\tHTTP/1.1": 400,
    "GET / HTTP/11": 400,
    "GET / HTTP/1.1x": 400,
    "GET / http/1.1": 400,
    "GET a HTTP/1.1": 400,
    "GET * HTTP/1.1": 400,
    "GET /# HTTP/1.1": 400,
    "GET /\xe4 HTTP/1.1": 400,
    "GET ftp://a/ HTTP/1.1": 400,
    "GET http:// HTTP/1.1": 400,
    "GET http://u@a/ HTTP/1.1": 400,
    "G(T / HTTP/1.1": 400,
    "": 400,
    "GET / HTTP/2.0": 505,
    "GET / HTTP/0.9": 505,
    "GET / HTTP/3.0": 505,
    "get / HTTP/1.1": 501,
    "CONNECT a:80 HTTP/1.1": 501,
    f"{'M' * 40} / HTTP/1.1": 501,
}


@pytest.mark.parametrize(("line", "status"), LINES.items())
def test_wrong_request_lines(line: str, status: int) -> None:
    assert status_of(f"{line}\r\nhost: a\r\n") == status


def test_codings_that_are_not_served_gets_501_back() -> None:
    assert status_of("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n") == 501


def test_http_1_0_has_no_chunks() -> None:
    assert status_of("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n") == 400


def test_an_expectation_that_is_not_known_gets_417_back() -> None:
    assert status_of("POST / HTTP/1.1\r\nhost: a\r\nexpect: a-miracle\r\n") == 417


def test_what_is_too_large() -> None:
    small = Http1Limits(target_max_bytes=20, fields_max_bytes=200, fields_max=3)
    assert status_of(f"GET /{'a' * 100} HTTP/1.1\r\nhost: a\r\n", small) == 414
    assert status_of(f"GET / HTTP/1.1\r\nhost: a\r\nx: {'a' * 200}\r\n", small) == 431
    assert status_of("GET / HTTP/1.1\r\nhost: a\r\n" + "x: y\r\n" * 3, small) == 431


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\r\nhost: a\nx", b"\x16\x03\x01", b"GET /\rx"])
def test_the_beginning_of_what_is_no_head_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(Http1Error) as caught:
        check_incomplete(data, LIMITS)
    assert caught.value.status == 400


def test_the_beginning_of_a_head_that_is_too_large_is_refused() -> None:
    for data, status in ((b"GET /" + b"a" * 9_000, 414), (b"GET / HTTP/1.1\r\nx: " + b"a" * 17_000, 431)):
        with pytest.raises(Http1Error) as caught:
            check_incomplete(data, LIMITS)
        assert caught.value.status == status


NAMES = st.text("abcXYZ019-_!", min_size=1, max_size=10)
VALUES = st.text('abc \t:,;\xe4"', max_size=20)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=20), st.integers(0, 10))
def test_every_well_formed_head_is_read_as_it_was_written(fields: list[tuple[str, str]], cut: int) -> None:
    kept = [(f"x{name}", value) for name, value in fields]
    block = "GET /p HTTP/1.1\r\nhost: a\r\n" + "".join(f"{name}:{value}\r\n" for name, value in kept)
    head = read(block).head
    expected = [(name.lower().encode(), value.strip(" \t").encode("latin-1")) for name, value in kept]
    assert head.fields == [(b"host", b"a"), *expected]
    check_incomplete(block.encode("latin-1")[: len(block) - cut], LIMITS)


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_else_than_fail(data: bytes) -> None:
    for start in (b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nhost: a\r\n"):
        reader = Http1Reader(LIMITS, Origin())
        reader.feed(start + data + b"\r\n\r\n")
        with suppress(Http1Error):
            received = reader.read_head()
            assert received is None or received.head.path[:1] in ("/", "*")
