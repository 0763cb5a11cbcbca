"""Invocation metadata of a client: what the mesh reads and what it passes on."""

from __future__ import annotations

import uuid

import pytest

from gateway.dialects.grpc_metadata import read_invocation


def test_keys_of_the_mesh_fill_the_context():
    """Ids and trace headers are read from the metadata (item 214)."""
    invocation = read_invocation(
        [
            ("application", "shop"),
            ("request_id", "r-1"),
            ("multiplexed_model_id", "m"),
            ("traceparent", "00-a-b-01"),
            ("tracestate", "x=1"),
        ]
    )
    assert invocation.application == "shop"
    context = invocation.context("/a.B/C", "shop")
    assert (context.route, context.app) == ("/a.B/C", "shop")
    assert (context.request_id, context.multiplexed_model_id) == ("r-1", "m")
    assert (context.traceparent, context.tracestate) == ("00-a-b-01", "x=1")


def test_each_call_gets_a_request_id_of_its_own_when_none_is_sent():
    invocation = read_invocation([])
    first, second = invocation.context("", ""), invocation.context("", "")
    assert uuid.UUID(first.request_id).version == 4
    assert first.request_id != second.request_id
    assert invocation.application is None


@pytest.mark.parametrize("request_id", ["", "é", "a\nb", "x" * 201])
def test_a_request_id_that_could_not_be_returned_is_replaced(request_id: str):
    assert uuid.UUID(read_invocation([("request_id", request_id)]).context("", "").request_id)


def test_everything_but_grpcs_own_is_passed_on():
    invocation = read_invocation(
        [("application", "a"), ("user-agent", "ua"), ("grpc-accept-encoding", "gzip"), ("blob-bin", b"\x00\xff")]
    )
    assert invocation.passed_on == (("application", "a"), ("user-agent", "ua"), ("blob-bin", b"\x00\xff"))


def test_an_empty_application_counts_as_absent():
    assert read_invocation([("application", "")]).application is None
