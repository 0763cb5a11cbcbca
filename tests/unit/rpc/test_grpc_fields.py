"""Header fields of gRPC: timeouts, messages and metadata, both ways."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.http2.hpack_decoder import Field, HeaderDecoder
from mesh.rpc.grpc_fields import (
    TIMEOUT_MAX_S,
    metadata_block,
    quote_message,
    read_metadata,
    read_timeout,
    status_block,
    unquote_message,
    write_timeout,
)


def fields_of(block: bytes) -> list[Field]:
    fields = HeaderDecoder(lambda fields: fields, 2**20).decode(block)
    assert fields is not None
    return fields


# ---- Timeouts --------------------------------------------------------------------------------------------------------


@given(st.floats(min_value=0, max_value=TIMEOUT_MAX_S, allow_nan=False))
def test_a_timeout_is_never_shorter_on_the_wire_and_hardly_longer(seconds: float) -> None:
    written = write_timeout(seconds)
    assert len(written) <= 9
    read = read_timeout(written)
    assert seconds * (1 - 1e-12) <= read <= seconds + max(1e-6, seconds * 1e-3 if seconds < 1e8 else 3600)


@given(st.integers(0, 10**8 - 1), st.sampled_from("HMSmun"))
def test_a_timeout_of_any_client_comes_back(amount: int, unit: str) -> None:
    read = read_timeout(f"{amount}{unit}".encode())
    assert math.isclose(read_timeout(write_timeout(read)), read, rel_tol=1e-3, abs_tol=1e-6)


@pytest.mark.parametrize("seconds", [-1.0, -math.inf, 0.0])
def test_a_timeout_that_has_passed(seconds: float) -> None:
    assert read_timeout(write_timeout(seconds)) == 0


@pytest.mark.parametrize("seconds", [TIMEOUT_MAX_S * 2, 1e300, math.inf, 10**400], ids=["twice", "1e300", "inf", "int"])
def test_a_timeout_beyond_all_digits(seconds: float) -> None:
    assert write_timeout(seconds) == b"99999999H"


@pytest.mark.parametrize(
    ("seconds", "error"),
    [("1", TypeError), (True, TypeError), (Decimal(1), TypeError), (math.nan, ValueError)],
    ids=str,
)
def test_only_a_number_is_a_timeout(seconds: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="a timeout is a number of seconds"):
        write_timeout(seconds)


@pytest.mark.parametrize(
    "value", [b"", b"S", b"1", b"1s", b"-1S", b"1.5S", b"123456789S", b" 1S", b"1S ", b"1SS", b"\xb2S"]
)
def test_what_is_no_timeout(value: bytes) -> None:
    with pytest.raises(ValueError, match="grpc-timeout"):
        read_timeout(value)


# ---- Messages --------------------------------------------------------------------------------------------------------


@given(st.text())
def test_a_message_comes_back(text: str) -> None:
    quoted = quote_message(text)
    assert all(0x20 <= byte <= 0x7E for byte in quoted)
    assert quoted == quoted.strip(b" ")
    assert unquote_message(quoted) == text.encode("utf-8", "replace").decode()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"a%20b", "a b"),
        (b"%C3%A9", "é"),
        (b"%c3%a9", "é"),
        (b"100%", "100%"),
        (b"%zz%4", "%zz%4"),
        (b"%25%41", "%A"),
        (b"\xff%FF", "\ufffd\ufffd"),
    ],
)
def test_messages_of_others(value: bytes, text: str) -> None:
    assert unquote_message(value) == text


def test_what_is_quoted_is_what_the_specification_says() -> None:
    assert quote_message("plain ~ text!") == b"plain ~ text!"
    assert quote_message("%\n\x7fé") == b"%25%0A%7F%C3%A9"


def test_spaces_at_the_ends_are_quoted_because_http_does_not_keep_them() -> None:
    """RFC 9113, 8.2.1: a value neither starts nor ends with a space."""
    assert quote_message("  two and one ") == b"%20 two and one%20"
    assert quote_message(" ") == b"%20"


# ---- Metadata --------------------------------------------------------------------------------------------------------

KEYS = st.from_regex(r"[0-9a-z_.-]{1,20}", fullmatch=True).filter(
    lambda key: not key.startswith("grpc-") and key not in ("te", "host", "content-type", "content-length")
)
TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)).map(lambda text: text.strip(" "))
ENTRIES = st.one_of(
    st.tuples(KEYS.filter(lambda key: not key.endswith("-bin")), TEXTS),
    st.tuples(KEYS.map(lambda key: key + "-bin"), st.binary()),
)


@given(st.lists(ENTRIES, max_size=10))
def test_metadata_come_back_in_order(entries: list[tuple[str, str | bytes]]) -> None:
    assert read_metadata(fields_of(metadata_block(entries))) == tuple(entries)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (b"", [b""]),
        (b"YQ", [b"a"]),
        (b"YQ==", [b"a"]),
        (b"YWI=", [b"ab"]),
        (b"YQ,YWI", [b"a", b"ab"]),
        (b"YQ==, YWI=", [b"a", b"ab"]),
        (b"AP/+", [b"\0\xff\xfe"]),
    ],
)
def test_binary_values_padded_or_not_and_joined(value: bytes, read: list[bytes]) -> None:
    assert read_metadata([(b"x-bin", value)]) == tuple(("x-bin", each) for each in read)


@pytest.mark.parametrize("value", [b"a", b"!!!!", b"YQ=a", b"YQ,*"])
def test_binary_values_that_are_not_base64(value: bytes) -> None:
    with pytest.raises(ValueError, match="x-bin"):
        read_metadata([(b"x-bin", value)])


def test_commas_do_not_make_any_number_of_values() -> None:
    assert len(read_metadata([(b"x-bin", b",".join([b"YQ"] * 1_000))])) == 1_000
    for fields in ([(b"x-bin", b"," * 1_000)], [(b"x-bin", b"," * 600), (b"y-bin", b"," * 600)]):
        with pytest.raises(ValueError, match="more than 1,000 values"):
            read_metadata(fields)


def test_what_is_grpcs_own_is_no_metadata() -> None:
    own = [b":path", b"te", b"content-type", b"content-length", b"host", b"grpc-timeout", b"grpc-encoding"]
    assert read_metadata([(name, b"x") for name in own]) == ()
    fields = [(b"user-agent", b"x"), (b"grpc-status-details-bin", b"YQ"), (b"grpc-previous-rpc-attempts", b"2")]
    assert [key for key, _ in read_metadata(fields)] == [name.decode() for name, _ in fields]


@pytest.mark.parametrize(
    ("key", "value"),
    [("Upper", "x"), ("", "x"), ("a b", "x"), ("é", "x"), (":path", "/"), ("grpc-status", "0"), ("grpc-x-bin", b"")],
)
def test_keys_that_are_refused(key: str, value: str | bytes) -> None:
    with pytest.raises(ValueError, match="not a key of metadata"):
        metadata_block([(key, value)])


@pytest.mark.parametrize("value", ["é", "a\nb", "\0", "\x7f", b"\xff"])
def test_values_that_are_refused(value: str | bytes) -> None:
    with pytest.raises(ValueError, match="not printable ASCII"):
        metadata_block([("x", value)])


def test_a_status_is_a_code_a_message_and_metadata() -> None:
    assert fields_of(status_block(0)) == [(b"grpc-status", b"0")]
    assert fields_of(status_block(5, "nö", [("a", "b"), ("grpc-status-details-bin", b"x")])) == [
        (b"grpc-status", b"5"),
        (b"grpc-message", b"n%C3%B6"),
        (b"a", b"b"),
        (b"grpc-status-details-bin", b"eA"),
    ]
