"""The JSON of the REST form, with tensors in it and behind it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from mesh.inference.model_run import NamedOutputs, OutputTensor
from mesh.inference.protocol.datatypes import BF16, BYTES, DATATYPES, TensorError, output_datatype
from mesh.inference.protocol.inference_request import InferenceRequest
from mesh.inference.protocol.model_info import ModelInfo
from mesh.inference.protocol.tensor_contents import byte_array
from mesh.inference.rest_tensors import RestInference, read_json, read_rest, split_body, write_rest
from tests.unit.fakes.memory_peak import memory_peak

MODEL = ModelInfo("m")
IN_JSON = [each for each in DATATYPES.values() if each.contents_field and each not in (BF16, BYTES)]
SHAPES = arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
Array = Any


@st.composite
def numeric(draw: st.DrawFn) -> Array:
    """Without NaN and infinity, which JSON does not have."""
    dtype = draw(st.sampled_from(IN_JSON)).dtype
    elements = arrays_of.from_dtype(dtype, allow_nan=False, allow_infinity=False)
    return draw(arrays_of.arrays(dtype, draw(SHAPES), elements=elements))


@st.composite
def texts(draw: st.DrawFn) -> Array:
    shape = draw(SHAPES)
    count = int(np.prod(shape))
    elements = draw(st.lists(st.text(max_size=5), min_size=count, max_size=count))
    return byte_array(each.encode() for each in elements).reshape(shape)


def sent(*arrays: Array, is_binary: bool) -> tuple[bytes, str | None]:
    """A response with these arrays, as a request with the same: the JSON of both is nearly the same."""
    request = InferenceRequest("m", "2", "m:2", "r1")
    tensors = [OutputTensor(f"y{position}", output_datatype("y", each), each) for position, each in enumerate(arrays)]
    text, binary = write_rest(RestInference(request, {}, is_binary, {}), NamedOutputs(tensors, {"n": 1}))
    said = json.loads(text)
    assert (said["model_name"], said["model_version"], said["id"], said["parameters"]) == ("m", "2", "r1", {"n": 1})
    said["inputs"] = said.pop("outputs")
    text = json.dumps(said).encode()
    return b"".join((text, *binary)), str(len(text)) if is_binary else None


def same(found: Array, array: Array) -> bool:
    return found.dtype == array.dtype and found.shape == array.shape and np.array_equal(found, array)


@given(st.lists(numeric() | texts(), max_size=3), st.booleans())
def test_tensors_come_in_as_they_went_out(arrays: list[Array], is_binary: bool) -> None:
    asked = read_rest("m", "2", *split_body(*sent(*arrays, is_binary=is_binary)), MODEL)
    assert (asked.request.id, asked.request.model_id) == ("r1", "m:2")
    assert all(same(asked.arrays[f"y{position}"], each) for position, each in enumerate(arrays))


@given(numeric() | texts())
def test_data_may_be_flat_or_nested(array: Array) -> None:
    datatype = output_datatype("y", array)
    data = array.tolist() if datatype is not BYTES else np.array(array, object).tolist()
    text = json.dumps(data, default=bytes.decode)
    if array.ndim:
        assert same(read_json("x", datatype, list(array.shape), json.loads(text)), array)
    flat = json.loads(json.dumps(array.reshape(-1).tolist(), default=bytes.decode))
    assert same(read_json("x", datatype, list(array.shape), flat), array)


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "why"),
    [
        ("INT32", [1], [1.5], "elements of another type"),
        ("INT32", [1], ["1"], "elements of another type"),
        ("INT32", [1], [True], "elements of another type"),
        ("INT8", [1], [128], "outside of its range"),
        ("UINT8", [1], [-1], "outside of its range"),
        ("UINT64", [1], [2**64], "elements of another type"),
        ("UINT64", [2], [2**63, -1], "elements of another type"),
        ("UINT64", [2], [2**63, 1.5], "elements of another type"),
        ("FP32", [1], [1e39], "outside of its range"),
        ("FP32", [1], [None], "elements of another type"),
        ("FP32", [1], [[["1"]]], "elements of another type"),
        ("FP32", [3], [[1], [2, 3]], "not an array of equal rows"),
        ("FP32", [2, 3], [[1, 2], [3, 4], [5, 6]], "data of shape [3, 2]; its shape is [2, 3], or flat [6]"),
        ("FP32", [2], [1], "data of shape [1]; its shape is [2]"),
        ("FP32", [1], None, "has no data"),
        ("BOOL", [1], [2], "elements of another type"),
        ("BYTES", [1], [1], "other elements than strings"),
        ("FP16", [1], [1], "JSON cannot carry"),
        ("BF16", [1], [1], "JSON cannot carry"),
    ],
)
def test_data_that_does_not_fit_is_refused(datatype: str, shape: list[int], data: Any, why: str) -> None:
    with pytest.raises(TensorError) as refusal:
        read_json("x", DATATYPES[datatype], shape, data)
    assert "'x'" in str(refusal.value)
    assert why in str(refusal.value)


def test_integers_of_all_sizes_stay_exact() -> None:
    assert read_json("x", DATATYPES["UINT64"], [2, 2], [[2**64 - 1, 0], [1, 2]]).tolist() == [[2**64 - 1, 0], [1, 2]]


def test_booleans_may_be_numbers() -> None:
    assert read_json("x", DATATYPES["BOOL"], [2], [0, 1]).tolist() == [False, True]


@pytest.mark.parametrize("datatype", ["BYTES", "FP32"])
def test_data_that_is_nested_very_deep_is_refused(datatype: str) -> None:
    for depth in (100, 100_000):
        data = b"[" * depth + b"]" * depth
        body = b'{"inputs":[{"name":"x","datatype":"%b","shape":[1],"data":%b}]}' % (datatype.encode(), data)
        with pytest.raises(TensorError):
            read_rest("m", "", *split_body(body, None), MODEL)


def test_texts_among_numbers_take_no_memory_of_their_own() -> None:
    """An array of numpy would have room for the longest text in each of its elements."""
    with memory_peak() as peak, pytest.raises(TensorError, match="elements of another type"):
        read_json("x", DATATYPES["FP32"], [2_001], ["x" * 2_000, *[""] * 2_000])
    assert peak.bytes < 1_000_000


@pytest.mark.parametrize(
    ("body", "length", "why"),
    [
        (b"", None, "The body is not an inference request"),
        (b"[]", None, "The body is not an inference request: Expected `object`"),
        (b'{"id":"1"}', None, "missing required field `inputs`"),
        (b'{"inputs":[{"name":"x","shape":["a"],"datatype":"FP32"}]}', None, "$.inputs[0].shape[0]"),
        (b'{"inputs":[]}', "99", "Header Inference-Header-Content-Length is '99', the body has 13 bytes"),
        (b'{"inputs":[]}', "-1", "Header Inference-Header-Content-Length is '-1'"),
        (b'{"inputs":[]}abc', "13", "There are 3 bytes behind those of the inputs"),
    ],
)
def test_bodies_that_are_no_requests_are_refused(body: bytes, length: str | None, why: str) -> None:
    with pytest.raises(TensorError) as refusal:
        read_rest("m", "", *split_body(body, length), MODEL)
    assert why in str(refusal.value)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"parameters": {"binary_data_size": 9}}, "binary_data_size 9; behind the JSON"),
        ({"parameters": {"binary_data_size": True}}, "binary_data_size True"),
        ({"parameters": {"binary_data_size": 4}, "data": [1]}, "has both data and binary_data_size"),
        ({"parameters": {"shared_memory_region": "r"}}, "is in shared memory"),
        ({"datatype": "INT"}, "unknown datatype 'INT'"),
    ],
)
def test_inputs_that_are_wrong_are_refused(fields: dict[str, Any], why: str) -> None:
    text = json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", **fields}]}).encode()
    with pytest.raises(TensorError) as refusal:
        read_rest("m", "", *split_body(text + b"1234", str(len(text))), MODEL)
    assert "'x'" in str(refusal.value)
    assert why in str(refusal.value)


def test_outputs_that_json_cannot_carry_ask_for_bytes() -> None:
    for array in (np.zeros(1, np.float16), byte_array([b"\xff"])):
        with pytest.raises(TensorError, match=r"'y0'.*ask for binary_data"):
            sent(array, is_binary=False)


EMPTY = b'{"inputs":[]}'
BODIES = st.binary(max_size=40) | st.binary(max_size=9).map(lambda more: EMPTY + more)
LENGTHS = st.none() | st.text(max_size=3) | st.sampled_from([str(len(EMPTY)), "9" * 5_000])


@given(BODIES, LENGTHS)
def test_whatever_is_sent_is_read_or_refused(body: bytes, length: str | None) -> None:
    try:
        _, binary = split_body(body, length)
    except TensorError:
        return
    assert len(body) - len(binary) == int(length or len(body))
