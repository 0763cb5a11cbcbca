"""Parts of large messages: their bytes are protobuf's own, and they come together again in any interleaving."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.link.frames import LargeMessage, pack, pack_item
from mesh.link.parts import Assembler, MalformedFrameError, PartView, find_part, read_part, unpack_part
from mesh.v1 import replica_pb2
from mesh.wire.payload import raw, read_sections


def test_only_messages_that_are_worth_it_are_looked_into():
    large = LargeMessage(1, b"h", [bytes(100_000)])
    assert unpack_part(b"".join(large.take_part(50_000))) is not None
    assert unpack_part(b"".join(large.take_part(100))) is None


CALL_IDS = st.integers(1, 2**63)


@given(CALL_IDS, st.binary(min_size=1, max_size=300), st.integers(1, 64))
def test_a_part_is_what_protobuf_would_have_written(call_id: int, data: bytes, part_bytes: int):
    message = LargeMessage(call_id, b"head", [data])
    total = message.total_bytes
    is_first = True
    while not message.is_taken:
        packed = b"".join(message.take_part(part_bytes))
        (frame,) = replica_pb2.Frames.FromString(packed).frames
        assert packed == replica_pb2.Frames(frames=[frame]).SerializeToString()
        assert frame.call_id == call_id
        assert (frame.part.total_bytes, frame.part.head_bytes) == ((total, 4) if is_first else (0, 0))
        with_any_size = find_part(packed)
        assert with_any_size == read_part(call_id, frame.part)
        is_first = False


@given(st.binary(max_size=200))
def test_garbage_is_no_part_or_an_honest_one(data: bytes):
    view = find_part(data)
    if view is not None:
        (frame,) = replica_pb2.Frames.FromString(data).frames
        assert bytes(view.data) == frame.part.data


def test_other_frames_are_not_taken_for_parts():
    assert find_part(pack(replica_pb2.Frame(call_id=3, cancel=replica_pb2.Cancel()))) is None
    two = b"".join(LargeMessage(1, b"h", [b"abc"]).take_part(2) + LargeMessage(2, b"h", [b"abc"]).take_part(2))
    assert find_part(two) is None


@given(st.data(), st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=5))
def test_interleaved_messages_come_together_unchanged(data: st.DataObject, bodies: list[bytes]):
    def large(call_id: int, body: bytes) -> LargeMessage:
        packed = pack_item(call_id, raw(body))
        (frame,) = replica_pb2.Frames.FromString(packed).frames
        frame.item.payload.ClearField("data")
        frame.item.payload.section_bytes.append(len(body))
        return LargeMessage(call_id, frame.SerializeToString(), [body])

    pending = {call_id: large(call_id, body) for call_id, body in enumerate(bodies, 1)}
    assembler = Assembler(10_000)
    received: dict[int, bytes] = {}
    while pending:
        call_id = data.draw(st.sampled_from(sorted(pending)))
        view = find_part(b"".join(pending[call_id].take_part(data.draw(st.integers(1, 50)))))
        assert view is not None
        whole = assembler.add(view)
        if pending[call_id].is_taken:
            del pending[call_id]
            assert whole is not None
            frame, body = whole
            received[frame.call_id] = bytes(read_sections(frame.item.payload, body).data)
        else:
            assert whole is None
    assert received == dict(enumerate(bodies, 1))


def test_messages_beyond_the_limit_and_parts_that_do_not_fit_are_refused():
    assembler = Assembler(100)
    with pytest.raises(MalformedFrameError, match="the limit is 100"):
        assembler.add(PartView(1, 1_000, 10, b"x"))
    with pytest.raises(MalformedFrameError, match="head of 0"):
        assembler.add(PartView(2, 10, 0, b"x"))
    assembler.add(PartView(3, 10, 5, b"12345"))
    with pytest.raises(MalformedFrameError, match="exceed"):
        assembler.add(PartView(3, 0, 0, b"1234567"))
