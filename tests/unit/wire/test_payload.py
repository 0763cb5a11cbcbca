"""Payloads: values go there and back, large buffers without being pickled, and the caller may change them at once."""

from __future__ import annotations

import threading
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cluster.ray_objects import StoredObject
from mesh.exceptions import UnserializableError
from mesh.v1 import common_pb2
from mesh.wire.payload import (
    PICKLE,
    PICKLE_BUFFERS,
    RAW,
    Payload,
    decode,
    encode,
    raw,
    read,
    read_sections,
    write,
    write_sections,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=10,
)


def through_a_message(payload: Payload) -> Payload:
    message = common_pb2.Payload()
    write(payload, message)
    return read(common_pb2.Payload.FromString(message.SerializeToString()))


def through_parts(payload: Payload) -> Payload:
    message = common_pb2.Payload()
    body = b"".join(bytes(section) for section in write_sections(payload, message))
    return read_sections(common_pb2.Payload.FromString(message.SerializeToString()), memoryview(body))


@given(values)
def test_values_go_there_and_back(value: Any) -> None:
    assert decode(through_a_message(encode(value))) == value
    assert decode(through_parts(encode(value))) == value


@given(st.binary())
def test_bytes_pass_as_they_are(data: bytes) -> None:
    assert raw(data).codec == RAW
    assert decode(through_a_message(raw(data))) == data
    assert decode(through_parts(raw(data))) == data


@pytest.mark.parametrize("shape", [(10,), (5000,), (300, 300), (0,)])
@pytest.mark.parametrize("through", [through_a_message, through_parts])
def test_arrays_go_there_and_back(shape: tuple[int, ...], through: Any) -> None:
    array = numpy.arange(numpy.prod(shape), dtype=float).reshape(shape)
    payload = encode({"first": array, "second": array.T})
    assert bool(payload.buffers) == (array.nbytes >= 16 * 1024)
    arrived = decode(through(payload))
    assert numpy.array_equal(arrived["first"], array)
    assert numpy.array_equal(arrived["second"], array.T)


def test_stored_arrays_are_found_beside_a_pickle_that_comes_in_parts() -> None:
    stored = StoredObject(b"id", b"owner", b"status")
    arrived = through_parts(Payload(PICKLE_BUFFERS, b"pickle", stored=stored))
    assert arrived.stored == stored
    assert bytes(arrived.data) == b"pickle"


def test_an_array_may_be_changed_after_the_call_was_made() -> None:
    array = numpy.zeros(100_000)
    payload = encode(array)
    array[:] = 1
    assert not decode(payload).any()


def test_large_arrays_arrive_read_only() -> None:
    assert not decode(through_parts(encode(numpy.zeros(100_000)))).flags.writeable


def test_what_pickle_cannot_do_cloudpickle_does() -> None:
    assert decode(encode(lambda: 5))() == 5


class Response:
    """Says itself what to do instead."""

    def __reduce__(self) -> str:
        raise TypeError("Await it.")


def test_the_advice_of_a_value_itself_is_enough() -> None:
    with pytest.raises(UnserializableError, match=r": Await it\.$"):
        encode(Response(), "arguments")


def test_an_unpicklable_value_is_named() -> None:
    with pytest.raises(UnserializableError, match=r"The arguments cannot be pickled: .*lock.* object\. Send data: "):
        encode(threading.Lock(), "arguments")


@pytest.mark.parametrize("lengths", [[], [3], [6], [2, 2], [2**40]])
def test_sections_have_to_fit_their_body(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="sections of"):
        read_sections(common_pb2.Payload(codec=PICKLE, section_bytes=lengths), memoryview(b"12345"))
