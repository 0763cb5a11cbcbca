"""The assembler refuses what does not fit and forgets what was given up."""

import pytest

from mesh.link.parts import Assembler, MalformedFrameError, PartView


def part(data: bytes, total_bytes: int = 0, head_bytes: int = 0) -> PartView:
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
