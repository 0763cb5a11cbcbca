"""Requests and responses on the wire: the same bytes that protobuf reads and writes."""

from __future__ import annotations

import contextlib

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from mesh.inference.protocol.messages import (
    InferParameter,
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)
from mesh.inference.protocol.wire_messages import (
    StreamFailure,
    WireResponse,
    read_request,
    write_response,
    write_stream_response,
)

NAMES = st.text(max_size=9)
RAW = st.lists(st.binary(max_size=300), max_size=4)


@st.composite
def requests(draw: st.DrawFn) -> ModelInferRequest:
    return ModelInferRequest(
        model_name=draw(NAMES),
        model_version=draw(NAMES),
        id=draw(NAMES),
        parameters={draw(NAMES): InferParameter(int64_param=draw(st.integers(-(2**63), 2**63 - 1)))},
        inputs=[ModelInferRequest.InferInputTensor(name=name, shape=[1]) for name in draw(st.lists(NAMES, max_size=3))],
        raw_input_contents=draw(RAW),
    )


@given(requests(), requests())
def test_a_request_is_read_as_protobuf_reads_it(first: ModelInferRequest, second: ModelInferRequest) -> None:
    """Also fields in any order: two requests behind each other are one, merged."""
    data = first.SerializeToString() + second.SerializeToString()
    expected = ModelInferRequest.FromString(data)
    found = read_request(data)
    assert [bytes(each) for each in found.raw] == list(expected.raw_input_contents)
    del expected.raw_input_contents[:]
    assert found.message == expected


@given(st.binary(max_size=60))
def test_what_protobuf_cannot_read_is_refused(data: bytes) -> None:
    try:
        expected = ModelInferRequest.FromString(data)
    except DecodeError:
        with pytest.raises((DecodeError, ValueError)):
            read_request(data)
        return
    if any(byte & 7 == 3 for byte in data):
        return  # perhaps a group, which nothing writes any more
    assert [bytes(each) for each in read_request(data).raw] == list(expected.raw_input_contents)


def test_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="wire type 3"):
        read_request(b"\x53\x54")


@given(requests(), st.data())
def test_a_request_that_is_cut_off_is_refused_or_shorter(request: ModelInferRequest, data: st.DataObject) -> None:
    whole = request.SerializeToString()
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    with contextlib.suppress(ValueError, DecodeError):
        assert len(read_request(cut).raw) <= len(request.raw_input_contents)


def test_a_request_of_very_many_fields_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 10000 fields"):
        read_request(b"\x50\0" * 10_001)


@given(NAMES, RAW)
def test_a_response_is_written_as_protobuf_reads_it(name: str, raw: list[bytes]) -> None:
    message = ModelInferResponse(model_name=name, outputs=[ModelInferResponse.InferOutputTensor(name="y")])
    response = WireResponse(message, [memoryview(each) for each in raw])
    expected = ModelInferResponse(model_name=name, outputs=message.outputs, raw_output_contents=raw)
    assert ModelInferResponse.FromString(write_response(response)) == expected
    streamed = ModelStreamInferResponse.FromString(write_stream_response(response))
    assert streamed == ModelStreamInferResponse(infer_response=expected)


def test_a_failure_of_a_stream_names_its_request() -> None:
    failure = StreamFailure("no such model", ModelInferResponse(model_name="m", id="7"))
    found = ModelStreamInferResponse.FromString(write_stream_response(failure))
    assert (found.error_message, found.infer_response.model_name, found.infer_response.id) == (
        "no such model",
        "m",
        "7",
    )
