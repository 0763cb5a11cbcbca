"""Frames: what goes in comes out, whole or in parts, in whatever way parts of several calls interleave."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from mesh.exceptions import CancelReason
from mesh.link import frames
from mesh.link.frames import LargeMessage
from mesh.link.outgoing_call import CallRequest
from mesh.link.parts import Assembler, MalformedFrameError, read_part
from mesh.link.small_frames import receive_frames
from mesh.settings import settings
from mesh.v1 import common_pb2, replica_pb2
from mesh.wire.identity import Identity
from mesh.wire.outcome import Outcome, Times, read_status
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
        frame = only_frame(b"".join(packed.take_part(PART_BYTES)))
        whole = assembler.add(read_part(frame.call_id, frame.part))
        assert (whole is not None) == packed.is_taken
        if whole is not None:
            return whole


class Received:
    """What a message says to the end of a link."""

    def __init__(self, message: bytes) -> None:
        self.calls: list[tuple[Any, ...]] = []
        receive_frames(message, self)

    def on_open(self, call_id: int, request: CallRequest, credit: int) -> None:
        self.calls.append(("open", call_id, request, credit))

    def on_small_result(self, call_id: int, payload: Payload, ongoing: int | None, times: Times) -> None:
        self.calls.append(("result", call_id, payload, ongoing, times))

    def on_item(self, call_id: int, payload: Payload) -> None:
        self.calls.append(("item", call_id, payload))

    def on_frame(self, frame: replica_pb2.Frame, body: memoryview | None) -> None:
        assert body is None
        self.calls.append(("frame", frame))


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


identities = st.none() | st.builds(Identity, texts.filter(bool), st.dictionaries(texts, texts, max_size=3))


@given(payloads, texts, texts, st.booleans(), st.booleans(), identities, texts)
def test_a_request_arrives_as_it_was_sent(
    payload: Payload,
    method: str,
    model_id: str,
    streams_request: bool,
    streams_response: bool,
    identity: Identity | None,
    tenant: str,
) -> None:
    context = RequestContext("id", "/route", "app", model_id, "trace", "state", identity, tenant)
    metadata = (("key", b"value"),)
    request = CallRequest(method, payload, context, None, streams_request, streams_response, metadata, "ipv4:1.2.3.4")
    frame, body = arrive(frames.pack_open(3, request), Assembler(10_000))
    read = frames.read_open(frame.open, body)
    assert content(read.payload) == content(payload)
    assert replace(read, payload=None) == replace(request, payload=None)


@given(st.lists(st.tuples(texts, st.binary(max_size=20)), max_size=3), st.sampled_from(["gzip", ""]), st.booleans())
def test_headers_of_a_response_arrive_as_they_were_sent(
    entries: list[tuple[str, bytes]], encoding: str, skips_next: bool
) -> None:
    """Also empty ones, which are frames too."""
    packed = frames.pack_initial_metadata(5, tuple(entries))
    packed += frames.pack_compression(5, encoding, skips_next=skips_next)
    (_, metadata), (_, compression) = Received(packed).calls
    assert (metadata.call_id, metadata.WhichOneof("kind")) == (5, "initial_metadata")
    assert [(entry.key, entry.value) for entry in metadata.initial_metadata.entries] == entries
    assert (compression.call_id, compression.WhichOneof("kind")) == (5, "compression")
    assert (compression.compression.encoding, compression.compression.skips_next) == (encoding, skips_next)


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
        frame = only_frame(b"".join(messages[number].take_part(PART_BYTES)))
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


small_payloads = st.builds(Payload, st.sampled_from([RAW, PICKLE]), st.binary(max_size=3000))
contexts = st.builds(RequestContext, texts, texts, texts, texts, texts, texts)
requests = st.builds(
    CallRequest,
    method=texts,
    payload=small_payloads,
    context=contexts,
    streams_response=st.booleans(),
    metadata=st.lists(st.tuples(texts, texts | st.binary(max_size=10)), max_size=3).map(tuple),
    peer=texts,
)


@given(st.lists(st.tuples(st.integers(1, 2**40), requests), max_size=4))
def test_small_requests_are_read_as_protobuf_reads_them(sent: list[tuple[int, CallRequest]]) -> None:
    message = b"".join(frames.pack_open(call_id, request) for call_id, request in sent)
    by_protobuf = replica_pb2.Frames.FromString(message).frames
    received = Received(message).calls
    assert len(received) == len(by_protobuf) == len(sent)
    for (kind, call_id, request, credit), frame, (sent_id, original) in zip(received, by_protobuf, sent, strict=True):
        assert kind == "open", "it did not have to go through protobuf"
        assert call_id == frame.call_id == sent_id
        assert request == frames.read_open(frame.open, None)
        assert request.context == original.context
        assert credit == frame.open.credit


times_in_us = st.tuples(st.integers(0, 2**40), st.integers(0, 2**40))


@given(st.integers(1, 2**40), small_payloads, st.none() | st.integers(0, 2**31), times_in_us)
def test_small_results_are_read_as_protobuf_reads_them(
    call_id: int, payload: Payload, ongoing: int | None, times: Times
) -> None:
    packed = frames.pack_result(call_id, Outcome(payload=payload, times=times), ongoing)
    (frame,) = replica_pb2.Frames.FromString(packed).frames
    assert Received(packed).calls == [("result", call_id, payload, ongoing, times)]
    assert (frame.result.queue_us, frame.result.user_us) == times
    assert frame.call_id == call_id
    assert frames.read_payload(frame.result.payload, None) == payload
    assert (frame.result.load.ongoing if frame.result.HasField("load") else None) == ongoing


@given(st.integers(1, 2**40), small_payloads)
def test_small_items_are_read_as_protobuf_reads_them(call_id: int, payload: Payload) -> None:
    packed = frames.pack_item(call_id, payload)
    (frame,) = replica_pb2.Frames.FromString(packed).frames
    assert Received(packed).calls == [("item", call_id, payload)]
    assert frame.call_id == call_id
    assert frames.read_payload(frame.item.payload, None) == payload


@given(identities, identities)
def test_the_identity_travels_with_a_small_request(first: Identity | None, second: Identity | None) -> None:
    """Of each call its own, though calls share most of their bytes."""
    for identity in (first, second, first):
        context = RequestContext("id", "r", "a", identity=identity)
        packed = frames.pack_open(1, CallRequest("m", Payload(RAW, b""), context))
        ((_, _, read, _),) = Received(packed).calls
        assert read.context == context
        # Protobuf reads the same.
        frame = replica_pb2.Frames.FromString(packed).frames[0]
        assert RequestContext.read(frame.open.context) == context


def test_a_deadline_travels_with_a_small_request() -> None:
    request = CallRequest("m", Payload(RAW, b""), RequestContext("id"), time.monotonic() + 5)
    ((_, _, read, _),) = Received(frames.pack_open(1, request)).calls
    assert read.deadline_at_s == pytest.approx(request.deadline_at_s, abs=0.1)


@given(st.binary(max_size=60), st.integers(0, 200), st.integers(0, 255))
def test_wrong_bytes_are_malformed_or_what_protobuf_makes_of_them(garbage: bytes, position: int, byte: int) -> None:
    """No other error, whichever byte of a good message is wrong."""
    request = CallRequest("method", Payload(PICKLE, b"data"), RequestContext("id", "r", "a", "m", "t", "s"))
    good = frames.pack_open(300, request) + frames.pack_result(300, Outcome(payload=Payload(RAW, b"x")), 3)
    changed = bytearray(good)
    changed[position % len(good)] = byte
    for message in (garbage, good[: position % len(good)] + garbage, bytes(changed)):
        with contextlib.suppress(MalformedFrameError, DecodeError):
            calls = Received(message).calls
            assert len(calls) == len(replica_pb2.Frames.FromString(message).frames)
