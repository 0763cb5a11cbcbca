"""Codes, details and trailing metadata, checked and cut for the wire."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.grpc_status import fit_details, trailing_metadata
from mesh.wire.outcome import Outcome


def test_the_request_id_always_comes_first_and_once():
    outcome = Outcome(trailers=(("a", b"1"), ("request_id", b"fake"), ("b-bin", b"\xff")))
    assert trailing_metadata("r", outcome) == (("request_id", "r"), ("a", "1"), ("b-bin", b"\xff"))


def test_rich_errors_pass():
    trailers = (("grpc-status-details-bin", b"\x08\x05"),)
    assert trailing_metadata("r", Outcome(code=5, trailers=trailers))[1:] == trailers


@pytest.mark.parametrize(("key", "value"), [("Upper", b"1"), ("a b", b"1"), ("grpc-x", b"1"), ("ok", b"\xff")])
def test_a_trailer_that_grpc_cannot_carry_is_named(key: str, value: bytes):
    with pytest.raises(ValueError, match=key):
        trailing_metadata("r", Outcome(trailers=((key, value),)))


def test_details_are_cut_to_4096_characters():
    assert fit_details("x" * 5000) == "x" * 4096


@given(st.text(max_size=300).map(lambda text: text * 30))
def test_details_with_any_characters_fit_into_trailers(message: str):
    fitted = fit_details(message)
    assert message.startswith(fitted)
    assert len(quote(fitted, safe=" ", errors="replace")) <= 6 * 1024
