"""mesh.wire.large_pickles: large values go there and back, and nothing copies them in one go."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import numpy
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mesh.memory.sliced_copy import SLICE_BYTES
from mesh.wire import large_pickles
from mesh.wire.large_pickles import holds_large
from mesh.wire.payload import PICKLE, decode, encode

LARGE = bytes(range(256)) * (SLICE_BYTES // 256) + b"end"
small_values = st.recursive(
    st.none() | st.integers() | st.text() | st.binary(), lambda children: st.lists(children, max_size=3), max_leaves=10
)


class Main:
    """Pretends to be of a module that other processes do not have."""


Main.__module__ = "__main__"


def in_band(buffer: pickle.PickleBuffer) -> bool:
    return True


@pytest.fixture
def without_pickles_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the lock is kept for all of the value")

    monkeypatch.setattr(pickle, "dumps", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)


def test_looking_for_large_values_has_an_end_and_asks_objects_nothing() -> None:
    shared: list[Any] = []
    for _ in range(100):
        shared = [shared, shared]
    itself: list[Any] = [LARGE[:10]]
    itself.append(itself)
    assert not holds_large(shared)
    assert not holds_large(itself)
    # An array of numpy has no truth: asking for it would raise.
    assert not holds_large(((numpy.ones(3), NoTruth()), {"array": numpy.ones(3)}))


class NoTruth:
    def __bool__(self) -> bool:
        raise AssertionError


@pytest.mark.parametrize(
    "value",
    [
        LARGE,
        bytearray(LARGE),
        "é" * (SLICE_BYTES + 1),
        ((LARGE,), {}),
        ((), {"image": [LARGE, 1, LARGE]}),
        {"text": "x" * 70_000, "content": LARGE, "numbers": list(range(50_000))},
    ],
)
@pytest.mark.usefixtures("without_pickles_in_one_go")
def test_large_values_go_there_and_back_in_slices(value: Any) -> None:
    payload = encode(value)
    assert payload.codec == PICKLE
    assert type(payload.data) is memoryview
    assert decode(payload) == value


@pytest.mark.usefixtures("without_pickles_in_one_go")
def test_an_array_beside_large_bytes_stays_out_of_the_pickle() -> None:
    array = numpy.arange(50_000)
    payload = encode({"content": LARGE, "array": array}, store=False)
    assert len(payload.buffers) == 1
    decoded = decode(payload)
    assert decoded["content"] == LARGE
    assert numpy.array_equal(decoded["array"], array)


def test_either_end_may_be_of_an_earlier_version() -> None:
    value = [LARGE, "text", {"key": LARGE}]
    written = large_pickles.dumps(value, in_band)
    assert written is not None
    assert pickle.loads(written) == value
    assert large_pickles.loads(memoryview(pickle.dumps(value, 5))) == value
    assert large_pickles.loads(memoryview(pickle.dumps(value, 0))) == value


@given(small_values)
@example(["__main__"])
def test_the_pickle_of_a_writer_is_read_by_both(value: Any) -> None:
    """What has the name of the main module in it is left to cloudpickle, even if it is a text."""
    written = large_pickles.dumps((value, LARGE), in_band)
    assert (written is None) == (b"__main__" in pickle.dumps(value, 5))
    if written is not None:
        assert pickle.loads(written) == large_pickles.loads(written) == (value, LARGE)
    assert decode(encode((value, LARGE))) == (value, LARGE)


def test_what_only_main_has_is_left_to_cloudpickle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "Main", Main, raising=False)
    assert large_pickles.dumps((LARGE, Main), in_band) is None
    assert large_pickles.dumps((LARGE + b"__main__",), in_band) is not None


def test_a_large_array_is_copied_before_it_changes() -> None:
    array = numpy.arange(2 * SLICE_BYTES // 8)
    payload = encode(array, store=False)
    array[0] = 7
    assert type(payload.buffers[0]) is memoryview
    assert numpy.array_equal(decode(payload), numpy.arange(2 * SLICE_BYTES // 8))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", False),
        (bytes(SLICE_BYTES), False),
        (LARGE, True),
        (((), {}), False),
        (((1, LARGE), {}), True),
        (((), {"a": {"b": [LARGE]}}), True),
        ([LARGE] * 100, True),
        ([0] * 100, False),
        (numpy.zeros(1), False),
    ],
)
def test_only_values_with_large_bytes_are_pickled_so(value: Any, expected: bool) -> None:
    assert holds_large(value) is expected
