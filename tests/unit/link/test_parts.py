"""The assembler refuses what does not fit and forgets what was given up."""

import resource
from pathlib import Path

import pytest

from mesh.link.parts import Assembler, MalformedFrameError, PartView
from mesh.v1 import replica_pb2


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
