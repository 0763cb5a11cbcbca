"""mesh.rpc.status_details: rich errors, as clients of any language read them."""

from __future__ import annotations

import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2 as details_pb2
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st

from mesh.rpc.status_details import DETAILS_KEY, DETAILS_MAX_WIRE_BYTES, decode_details, encode_details

INFO = details_pb2.ErrorInfo(reason="SOLD_OUT", domain="shop", metadata={"item": "tea"})
RETRY = details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=3))
VIOLATION = details_pb2.BadRequest(field_violations=[{"field": "name", "description": "is empty"}])


@given(st.integers(1, 16), st.text(max_size=200), st.lists(st.sampled_from([INFO, RETRY, VIOLATION]), max_size=5))
def test_details_are_read_back_as_they_were_given(code: int, message: str, details: list[object]) -> None:
    data = encode_details(code, message, details)  # type: ignore[arg-type]
    status = status_pb2.Status.FromString(data)
    assert (status.code, status.message) == (code, message)
    assert decode_details([("other", b"x"), (DETAILS_KEY, data)]) == tuple(details)


def test_details_that_are_packed_already_are_not_packed_again() -> None:
    packed = any_pb2.Any()
    packed.Pack(INFO)
    assert decode_details([(DETAILS_KEY, encode_details(5, "", [packed]))]) == (INFO,)


@pytest.mark.parametrize("value", [b"\x08", b"no protobuf"])
def test_details_of_an_unknown_type_stay_packed(value: bytes) -> None:
    unknown = any_pb2.Any(type_url="type.googleapis.com/far.Away", value=value)
    broken = any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")
    assert decode_details([(DETAILS_KEY, encode_details(5, "", [unknown, broken]))]) == (unknown, broken)


@given(st.binary(max_size=100))
def test_any_bytes_of_a_peer_are_read(data: bytes) -> None:
    assert all(each.DESCRIPTOR is not None for each in decode_details([(DETAILS_KEY, data)]))


def test_without_the_trailer_there_are_none() -> None:
    assert decode_details([("grpc-status", b"5")]) == ()


def test_more_than_clients_take_is_refused_with_both_sizes() -> None:
    large = details_pb2.DebugInfo(detail="x" * DETAILS_MAX_WIRE_BYTES)
    with pytest.raises(ValueError, match=rf"bytes in the trailers .* more than about {DETAILS_MAX_WIRE_BYTES}"):
        encode_details(13, "", [large])
    with pytest.raises(ValueError, match="Send less"):
        encode_details(13, "ü" * 1500, [])


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(TypeError, match=r"protobuf messages, such as .*, not dict"):
        encode_details(3, "", [{"reason": "x"}])  # type: ignore[list-item]
