"""The model that a request names in its message or its path, for the choice of a replica."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.requests.model_ids import model_id_of_message, model_id_of_path
from mesh.inference.inference_server import InferenceServer
from mesh.inference.protocol.inference_request import model_id_of
from mesh.inference.protocol.messages import ModelInferRequest, ModelReadyRequest
from mesh.usercode.model_id_sources import model_ids_of

SOURCES = model_ids_of(InferenceServer)
FIELDS = SOURCES.fields["/inference.GRPCInferenceService/ModelInfer"]
NAMES = st.text(max_size=20)


@given(NAMES, NAMES, st.lists(st.binary(max_size=50), max_size=3))
def test_the_id_of_a_message_is_the_one_that_its_replica_makes(name: str, version: str, raw: list[bytes]) -> None:
    message = ModelInferRequest(model_name=name, model_version=version, id="r", raw_input_contents=raw)
    expected = model_id_of(name, version) if name else version
    assert model_id_of_message(message.SerializeToString(), FIELDS) == expected
    asked = ModelReadyRequest(name=name, version=version)
    assert model_id_of_message(asked.SerializeToString(), FIELDS) == expected


@given(st.binary(max_size=100))
def test_what_is_no_message_has_some_id_or_none(data: bytes) -> None:
    assert isinstance(model_id_of_message(data, FIELDS), str)


def test_a_message_that_is_not_read_to_its_end_has_no_id() -> None:
    assert model_id_of_message(b"\x0a\x05abc", FIELDS) == ""
    assert model_id_of_message(b"\x0a\x01\xff", FIELDS) == ""
    assert model_id_of_message(ModelInferRequest(model_name="m" * 600).SerializeToString(), FIELDS) == ""
    # Of a thousand fields before the name only the first are looked at.
    assert model_id_of_message(b"\x08\x01" * 1000 + b"\x0a\x01m", FIELDS) == ""


@pytest.mark.parametrize(
    ("path", "depth", "model_id"),
    [
        ("/v2/models/m/infer", 0, "m"),
        ("/v2/models/m/versions/3/infer", 0, "m:3"),
        ("/v2/models/m/versions/3", 0, "m:3"),
        ("/v2/models/m/versions", 0, "m"),
        ("/zoo/v2/models/a%2Fb%20c/ready", 1, "a/b c"),
        ("/v2/models/m", 1, ""),
        ("/v2/models", 0, ""),
        ("/v2/models/", 0, ""),
        ("/v2/health/live", 0, ""),
        ("/", 0, ""),
        ("", 0, ""),
        ("/v2/models/" + "m" * 600, 0, ""),
    ],
)
def test_the_id_of_a_path(path: str, depth: int, model_id: str) -> None:
    assert model_id_of_path(path, depth, SOURCES.paths) == model_id
