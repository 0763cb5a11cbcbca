"""Frames: what goes in comes out, whole or in parts, in whatever way parts of several calls interleave."""

from __future__ import annotations

import time
from dataclasses import replace
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.exceptions import CancelReason
from mesh.link import frames
from mesh.link.frames import LargeMessage
from mesh.link.outgoing_call import CallRequest
from mesh.link.parts import Assembler, MalformedFrameError, read_part
from mesh.settings import settings
from mesh.v1 import common_pb2, replica_pb2
from mesh.wire.outcome import Outcome, read_status
from mesh.wire.payload import PICKLE, PICKLE_BUFFERS, RAW, Payload
from mesh.wire.request_context import RequestContext

PART_BYTES = 100
SMALL = replace(settings(), payload=replace(settings().payload, part_bytes=PART_BYTES))

payloads = st.builds(
    Payload, st.just(PICKLE_BUFFERS), st.binary(max_size=400), st.lists(st.binary(max_size=300), max_size=3)
) | st.builds(Payload, st.sampled_from([RAW, PICKLE]), st.binary(max_size=1200))
texts = st.text(max_size=20)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "settings", lambda: SMALL)


def only_frame(packed: bytes) -> replica_pb2.Frame:
    (frame,) = replica_pb2.Frames.FromString(packed).frames
    return frame


def arrive(packed: frames.Packed, assembler: Assembler) -> tuple[replica_pb2.Frame, memoryview | None]:
    """What the peer sees of one message."""
    if isinstance(packed, bytes):
        return only_frame(packed), None
    while True:
        frame = only_frame(packed.take_part(PART_BYTES))
        whole = assembler.add(read_part(frame.call_id, frame.part))
        assert (whole is not None) == packed.is_taken
        if whole is not None:
            return whole


def content(payload: Payload | None) -> object:
    assert payload is not None
    return payload.codec, bytes(payload.data), [bytes(buffer) for buffer in payload.buffers]


@given(payloads)
def test_an_item_arrives_as_it_was_sent(payload: Payload) -> None:
    with patch.object(frames, "settings", lambda: SMALL):
        packed = frames.pack_item(7, payload)
    assert isinstance(packed, LargeMessage) == (payload.size_bytes > PART_BYTES)
    frame, body = arrive(packed, Assembler(10_000))
    assert frame.call_id == 7
    assert content(frames.read_payload(frame.item.payload, body)) == content(payload)


@given(payloads, texts, texts, st.booleans(), st.booleans())
def test_a_request_arrives_as_it_was_sent(
    payload: Payload, method: str, model_id: str, streams_request: bool, streams_response: bool
) -> None:
    context = RequestContext("id", "/route", "app", model_id, "trace", "state")
    metadata = (("key", b"value"),)
    request = CallRequest(method, payload, context, None, streams_request, streams_response, metadata, "ipv4:1.2.3.4")
    frame, body = arrive(frames.pack_open(3, request), Assembler(10_000))
    read = frames.read_open(frame.open, body)
    assert content(read.payload) == content(payload)
    assert replace(read, payload=None) == replace(request, payload=None)


@given(payloads | st.none(), texts, st.integers(0, 16))
def test_a_result_arrives_as_it_was_sent(payload: Payload | None, message: str, code: int) -> None:
    outcome = Outcome(code, message, payload, (("k-bin", b"\xff"),), b"pickle", "Type", "traceback")
    frame, body = arrive(frames.pack_result(9, outcome, 4), Assembler(10_000))
    read = read_status(frame.result.status, None)
    assert replace(outcome, payload=None) == read
    assert frame.result.load.ongoing == 4
    assert frame.result.HasField("payload") == (payload is not None)
    if payload is not None:
        assert content(frames.read_payload(frame.result.payload, body)) == content(payload)


def test_a_result_without_anything_is_a_result() -> None:
    packed = frames.pack_result(9, Outcome(), None)
    assert isinstance(packed, bytes)
    assert only_frame(packed).WhichOneof("kind") == "result"
    assert not only_frame(packed).result.HasField("load")


@given(st.lists(payloads, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_parts_of_different_calls_may_interleave(sent: list[Payload], random: object) -> None:
    messages = {
        number: message
        for number, payload in enumerate(sent)
        if isinstance(message := frames.pack_item(number, payload), LargeMessage)
    }
    assembler, arrived = Assembler(10_000), {}
    waiting = list(messages)
    while waiting:
        number = random.choice(waiting)  # type: ignore[attr-defined]
        frame = only_frame(messages[number].take_part(PART_BYTES))
        whole = assembler.add(read_part(frame.call_id, frame.part))
        if whole is not None:
            arrived[number] = frames.read_payload(whole[0].item.payload, whole[1])
            waiting.remove(number)
    assert {n: content(p) for n, p in arrived.items()} == {n: content(sent[n]) for n in messages}
    assert not assembler._assemblies


@pytest.mark.parametrize("size", [0, 100, 127, 128, 2040, 2048, 2060, 16_383, 16_384, 2_100_000])
def test_frames_of_every_length_can_be_joined(size: int) -> None:
    payload = common_pb2.Payload(data=b"x" * size)
    packed = frames.pack(replica_pb2.Frame(call_id=1, item=replica_pb2.Item(payload=payload)))
    read = replica_pb2.Frames.FromString(packed + frames.pack_cancel(2, CancelReason.CLIENT)).frames
    assert [frame.call_id for frame in read] == [1, 2]
    assert read[0].item.payload == payload


@pytest.mark.parametrize("deadline_s", [float("inf"), 1e300, 1e12, -1e12, 0.0])
def test_every_deadline_fits_its_field(deadline_s: float) -> None:
    request = CallRequest("m", None, RequestContext("id"), deadline_s)
    packed = frames.pack_open(1, request)
    assert isinstance(packed, bytes)
    assert 0 <= only_frame(packed).open.deadline_ms < 2**32


def test_the_deadline_travels_as_remaining_time() -> None:
    request = CallRequest("m", None, RequestContext("id"), time.monotonic() + 60)
    packed = frames.pack_open(1, request)
    assert isinstance(packed, bytes)
    read = frames.read_open(only_frame(packed).open, None)
    assert read.deadline_at_s == pytest.approx(time.monotonic() + 60, abs=1)


def test_sections_that_do_not_fit_their_body_are_malformed() -> None:
    message = replica_pb2.Item().payload
    message.section_bytes.extend([5, 5])
    with pytest.raises(MalformedFrameError):
        frames.read_payload(message, memoryview(b"123456789"))
