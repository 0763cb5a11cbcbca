"""The assembler refuses what does not fit and forgets what was given up."""

import resource
from pathlib import Path

import numpy as np
import pytest

from mesh.link.frames import LargeMessage, pack_item, read_payload
from mesh.link.parts import ALIGNMENT_BYTES, Assembler, MalformedFrameError, PartView, find_part
from mesh.v1 import replica_pb2
from mesh.wire.payload import decode, encode, raw


def part(data: bytes | memoryview, total_bytes: int = 0, head_bytes: int = 0) -> PartView:
    return PartView(1, total_bytes, head_bytes, data)


@pytest.mark.parametrize(
    ("total_bytes", "head_bytes"),
    [(0, 0), (10, 0), (10, 11), (10_000, 10)],
    ids=["empty", "no head", "head beyond the end", "too large"],
)
def test_a_message_that_cannot_be_is_refused_before_it_takes_memory(total_bytes: int, head_bytes: int) -> None:
    assembler = Assembler(1000)
    with pytest.raises(MalformedFrameError, match="call 1"):
        assembler.add(part(b"x", total_bytes, head_bytes))
    assert not assembler._assemblies


def test_parts_beyond_the_announced_size_are_refused() -> None:
    assembler = Assembler(1000)
    assert assembler.add(part(b"12345", 8, 2)) is None
    with pytest.raises(MalformedFrameError, match="exceed the announced 8 bytes"):
        assembler.add(part(b"6789"))


def test_a_message_that_was_given_up_leaves_nothing() -> None:
    assembler = Assembler(1000)
    assert assembler.add(part(b"12345", 8, 2)) is None
    assert assembler.discard(1)
    assert not assembler.discard(1)
    assert not assembler._assemblies


MIB = 1024 * 1024


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("total_bytes", [8 * MIB, 256 * MIB])
def test_a_message_takes_memory_only_for_what_has_come(total_bytes: int) -> None:
    """So its first part costs no more than each other part, and an upload that breaks off no more than it sent."""
    assembler = Assembler(256 * MIB)
    before = resident_bytes()
    assert assembler.add(part(b"head" + b"x" * MIB, total_bytes, 4)) is None
    assert resident_bytes() - before < 4 * MIB
    assert assembler.discard(1)


def test_the_sections_are_what_was_sent() -> None:
    head = replica_pb2.Frame(call_id=1).SerializeToString()
    assembler = Assembler(1000)
    assert assembler.add(part(head + b"12", len(head) + 5, len(head))) is None
    whole = assembler.add(part(memoryview(b"345")))
    assert whole is not None
    assert whole[0].call_id == 1
    assert whole[1] == b"12345"
    assert whole[1].readonly


@pytest.mark.parametrize("names", [(), ("some",), ("some", "more", "names that are longer")])
def test_arrays_arrive_aligned_whatever_stands_before_them(names: tuple[str, ...]) -> None:
    sent = {"names": names, "first": np.arange(100_001.0), "second": np.arange(200_000, dtype=np.int64)}
    large = pack_item(7, encode(sent, store=False))
    assert isinstance(large, LargeMessage)
    assembler, whole = Assembler(10 * MIB), None
    while not large.is_taken:
        view = find_part(b"".join(large.take_part(MIB // 2)))
        assert view is not None
        whole = assembler.add(view)
    assert whole is not None
    got = decode(read_payload(whole[0].item.payload, whole[1]))
    assert got["names"] == names
    assert np.array_equal(got["first"], sent["first"])
    assert np.array_equal(got["second"], sent["second"])
    assert got["first"].ctypes.data % ALIGNMENT_BYTES == 0
    assert got["second"].flags.aligned


@pytest.mark.parametrize("name", ["", "some", "a name that is longer"])
def test_the_large_field_of_a_protobuf_message_arrives_aligned(name: str) -> None:
    """Codecs that read views, as that of inference, need no copy of it."""
    before = replica_pb2.Part(head_bytes=3, data=name.encode())
    sent = before.SerializeToString() + replica_pb2.Part(total_bytes=len(name), data=bytes(MIB)).SerializeToString()
    got = arrived(sent)
    assert bytes(got) == sent
    assert (np.frombuffer(got, np.uint8).ctypes.data + len(sent) - MIB) % ALIGNMENT_BYTES == 0


@pytest.mark.parametrize("beginning", [b"", b"\xff" * 99, b"\x0b", b"\x80\x04\x95", b"\x0a\xff\xff\xff\xff\x0f"])
def test_any_bytes_arrive_as_they_were(beginning: bytes) -> None:
    sent = beginning + bytes(MIB)
    assert bytes(arrived(sent)) == sent


def arrived(message: bytes) -> memoryview:
    """A message that has crossed a link in parts."""
    large = pack_item(7, raw(message))
    assert isinstance(large, LargeMessage)
    assembler, whole = Assembler(10 * MIB), None
    while not large.is_taken:
        view = find_part(b"".join(large.take_part(MIB // 2)))
        assert view is not None
        whole = assembler.add(view)
    assert whole is not None
    return whole[1]


def test_a_message_whose_head_comes_in_pieces_is_whole_too() -> None:
    sent = np.arange(100_000.0)
    large = pack_item(7, encode(sent, store=False))
    assert isinstance(large, LargeMessage)
    view = find_part(b"".join(large.take_part(MIB)))
    assert view is not None
    assembler = Assembler(10 * MIB)
    assert assembler.add(PartView(7, view.total_bytes, view.head_bytes, view.data[:3])) is None
    whole = assembler.add(PartView(7, 0, 0, view.data[3:]))
    assert whole is not None
    assert np.array_equal(decode(read_payload(whole[0].item.payload, whole[1])), sent)
