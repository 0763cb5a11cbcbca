"""What is made of the headers of requests and responses, right and wrong ones."""

from __future__ import annotations

import pytest

from mesh.http2.frame_format import ErrorCode
from mesh.http2.hpack_decoder import Field
from mesh.rpc.request_head import read_request_head
from mesh.rpc.response_head import INTERIM, head_of_reset, read_response_head

REQUEST: dict[bytes, bytes] = {
    b":method": b"POST",
    b":scheme": b"http",
    b":path": b"/a.B/C",
    b":authority": b"test",
    b"te": b"trailers",
    b"content-type": b"application/grpc",
}


def request(**changes: bytes | None) -> list[Field]:
    """The fields of a request; `None` leaves one out."""
    by_name = {name.replace("_", "-").encode(): value for name, value in changes.items()}
    pseudo = {b":" + name: value for name, value in by_name.items() if b":" + name in REQUEST}
    regular = {name: value for name, value in by_name.items() if b":" + name not in REQUEST}
    return [(name, value) for name, value in {**REQUEST, **pseudo, **regular}.items() if value is not None]


# ---- Requests --------------------------------------------------------------------------------------------------------


def test_a_request() -> None:
    head = read_request_head(
        request(grpc_timeout=b"5S", grpc_encoding=b"gzip", content_length=b"12", x_key=b" value ", user_agent=b"me")
    )
    assert (head.path, head.timeout_s, head.encoding, head.content_length) == ("/a.B/C", 5.0, "gzip", 12)
    assert head.metadata == (("x-key", "value"), ("user-agent", "me"))
    assert (head.malformed, head.http_status, head.refusal) == ("", 200, "")


def test_a_request_that_says_nothing_special() -> None:
    head = read_request_head(request(grpc_encoding=b"identity"))
    assert (head.timeout_s, head.encoding, head.content_length, head.metadata) == (None, "", None, ())


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (b"application/grpc", 200),
        (b"application/grpc+proto", 200),
        (b"application/grpc+json", 200),
        (b"application/grpc; charset=utf-8", 200),
        (b"application/grpc-web", 415),
        (b"application/grpcx", 415),
        (b"text/html", 415),
        (b"", 415),
        (None, 415),
    ],
)
def test_content_types(content_type: bytes | None, status: int) -> None:
    assert read_request_head(request(content_type=content_type)).http_status == status


@pytest.mark.parametrize("method", [b"GET", b"PUT", b"OPTIONS"])
def test_methods_of_http_that_grpc_does_not_use(method: bytes) -> None:
    head = read_request_head(request(method=method))
    assert (head.http_status, head.malformed) == (405, "")


@pytest.mark.parametrize(
    "fields",
    [
        request(path=None),
        request(method=None),
        request(scheme=None),
        request(path=b""),
        request(connection=b"close"),
        request(te=b"gzip"),
        request(content_length=b"-1"),
        request(content_length=b"1.5"),
        request(content_length=b"9" * 20),
        request(content_length="\N{ARABIC-INDIC DIGIT ONE}".encode()),
        request(content_length=b"1_0"),
        [*request(content_length=b"1"), (b"content-length", b"1")],
        [*request(), (b":path", b"/late")],
        [*request(), (b"Upper", b"x")],
        [*request(), (b"x", b"a\r\nb")],
        [],
    ],
)
def test_what_is_no_http_request(fields: list[Field]) -> None:
    assert read_request_head(fields).malformed


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ((b"grpc-timeout", b"soon"), "grpc-timeout is 'soon': it takes"),
        ((b"grpc-timeout", b"1_0S"), "grpc-timeout"),
        ((b"grpc-timeout", "\N{ARABIC-INDIC DIGIT ONE}S".encode()), "grpc-timeout"),
        ((b"x-bin", b"!"), "x-bin"),
        ((b"grpc-timeout", b""), "grpc-timeout"),
    ],
)
def test_what_is_no_grpc_request(field: Field, text: str) -> None:
    head = read_request_head([*request(), field])
    assert text in head.refusal
    assert not head.malformed


def test_an_encoding_that_is_not_read_here_is_refused_with_those_that_are() -> None:
    """As gRPC-Web and Connect do, and the Connect conformance suite "gRPC Unexpected Requests" has it."""
    head = read_request_head(request(grpc_encoding=b"br"))
    assert (head.refusal_code, "identity,deflate,gzip" in head.refusal) == (12, True)
    assert not read_request_head(request(grpc_encoding=b"gzip")).refusal
    assert not read_request_head(request(grpc_encoding=b"identity")).refusal


def test_which_encodings_a_client_takes() -> None:
    head = read_request_head(request(grpc_accept_encoding=b"identity, deflate,gzip"))
    assert [head.accepts(each) for each in ("gzip", "deflate", "br")] == [True, True, False]
    assert not read_request_head(request()).accepts("gzip")


def test_odd_bytes_never_raise() -> None:
    head = read_request_head(request(path=b"/\xff\xfe", x=b"\xff", grpc_encoding=b"\xff"))
    assert (head.malformed, head.metadata) == ("", (("x", "\\xff"),))


# ---- Responses -------------------------------------------------------------------------------------------------------


def response(*fields: Field, status: bytes = b"200", content_type: bytes = b"application/grpc") -> list[Field]:
    return [(b":status", status), (b"content-type", content_type), *fields]


def test_headers_of_a_response() -> None:
    head = read_response_head(response((b"grpc-encoding", b"gzip"), (b"x", b"1")))
    assert (head.code, head.encoding, head.metadata) == (None, "gzip", (("x", "1"),))


def test_trailers_alone_and_behind_headers() -> None:
    status = [(b"grpc-status", b"5"), (b"grpc-message", b"n%C3%B6"), (b"grpc-status-details-bin", b"YQ")]
    for fields in (status, response(*status)):
        head = read_response_head(fields)
        assert (head.code, head.message) == (5, "nö")
        assert head.metadata == (("grpc-status-details-bin", b"a"),)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        *[
            (b"400", 13),
            (b"401", 16),
            (b"403", 7),
            (b"404", 12),
            (b"429", 14),
            (b"502", 14),
            (b"503", 14),
            (b"504", 14),
        ],
        *[(b"500", 2), (b"418", 2), (b"302", 2), (b"odd", 2), (b"9" * 5_000, 2)],
    ],
)
def test_answers_of_http_servers(status: bytes, code: int) -> None:
    head = read_response_head(response(status=status, content_type=b"text/html"))
    assert head.code == code
    assert "HTTP" in head.message


def test_a_grpc_status_counts_more_than_that_of_http() -> None:
    assert read_response_head(response((b"grpc-status", b"7"), status=b"503")).code == 7


def test_a_page_of_a_web_server_is_no_response() -> None:
    head = read_response_head(response(content_type=b"text/html"))
    assert (head.code, "text/html" in head.message) == (2, True)
    assert read_response_head([(b":status", b"200")]).code == 2


@pytest.mark.parametrize("status", [b"100", b"103"])
def test_interim_responses_are_ignored(status: bytes) -> None:
    assert read_response_head([(b":status", status)]) is INTERIM


@pytest.mark.parametrize("value", [b"", b"x", b"-1", b"1000", b"\xb2"])
def test_a_status_that_is_no_number_is_unknown(value: bytes) -> None:
    assert read_response_head([(b"grpc-status", value)]).code == 2


@pytest.mark.parametrize(
    "fields",
    [
        [(b"grpc-status", b"0"), (b"x-bin", b"!")],
        [(b"grpc-status", b"0"), (b"Upper", b"")],
        [(b"grpc-status", b"0"), (b":status", b"200")],
        [(b":status", b"200"), (b":status", b"200")],
        [(b":path", b"/")],
    ],
)
def test_malformed_responses_are_internal(fields: list[Field]) -> None:
    assert read_response_head(fields).code == 13


@pytest.mark.parametrize(
    ("reset", "code"),
    [
        (ErrorCode.NO_ERROR, 13),
        (ErrorCode.PROTOCOL_ERROR, 13),
        (ErrorCode.INTERNAL_ERROR, 13),
        (ErrorCode.REFUSED_STREAM, 14),
        (ErrorCode.CANCEL, 1),
        (ErrorCode.CONNECT_ERROR, 14),
        (ErrorCode.ENHANCE_YOUR_CALM, 8),
        (ErrorCode.INADEQUATE_SECURITY, 7),
        (4711, 13),
    ],
)
def test_streams_that_are_reset(reset: int, code: int) -> None:
    assert head_of_reset(reset).code == code
