"""The library h2 as a second opinion: random conversations mean the same at both ends, ours and theirs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from h2.settings import SettingCodes
from h2.windows import WindowManager
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mesh.http2.hpack_decoder import Field
from tests.unit.fakes.http2_ends import REQUEST, RESPONSE
from tests.unit.http2.oracle_ends import H2Side, Half, OurSide


class Conversation:
    """Carries out random operations, and knows what must come of them."""

    def __init__(self, client: Any, server: Any) -> None:
        self.sides = (client, server)
        self.wires = (bytearray(), bytearray())
        self.sent: dict[int, tuple[Half, Half]] = {}
        self.was_reset: set[int] = set()
        self._exchange()

    def do(self, operation: tuple[Any, ...]) -> None:
        match operation:
            case ("open", fields, _):
                self._open([*REQUEST, *fields])
            case ("carry", side, count):
                self._carry(side, count)
            case ("ping", side, _):
                self.sides[side].ping()
            case ("set", (code, value), side):
                self.sides[side].set(code, value)
            case (kind, (side, number), value) if self.sent:
                stream_id = list(self.sent)[number % len(self.sent)]
                if self.sides[side].knows(stream_id) and stream_id not in self.was_reset:
                    self._do_on_stream(kind, side, stream_id, value)

    def settle(self) -> None:
        """End all that is open, and let everything arrive."""
        for _ in range(2):
            self._exchange(turns=5)
            for side in (0, 1):
                self.sides[side].set(SettingCodes.INITIAL_WINDOW_SIZE, 65_535)
            assert self._exchange(), "the ends never stop talking"
            for stream_id in self.sent:
                for side in (0, 1):
                    if self.sides[side].knows(stream_id) and stream_id not in self.was_reset:
                        self._do_on_stream("end", side, stream_id, [])
        assert self._exchange(), "the ends never stop talking"

    def check(self) -> None:
        for stream_id, (request, response) in self.sent.items():
            at_server, at_client = self.sides[1].received(stream_id), self.sides[0].received(stream_id)
            if stream_id in self.was_reset:
                assert at_server.head in ([], request.head)
                assert at_client.head in ([], response.head)
            else:
                assert at_client == response
                assert at_server.head == request.head
                assert at_server == request or not at_server.is_complete
            assert request.body.startswith(at_server.body)
            assert response.body.startswith(at_client.body)

    def _open(self, fields: list[Field]) -> None:
        stream_id = self.sides[0].open(fields)
        if stream_id is not None:
            self.sent[stream_id] = (Half(head=fields), Half())

    def _do_on_stream(self, kind: str, side: int, stream_id: int, value: Any) -> None:
        half = self.sent[stream_id][side]
        if kind == "take":
            self.sides[side].take(stream_id)
            return
        if kind == "reset":
            # One that is complete in both directions cannot be reset any more, and need not.
            self.was_reset.add(stream_id)
            self.sides[side].reset(stream_id)
            return
        if half.is_complete:
            return
        if not half.head:
            half.head = list(RESPONSE)
            self.sides[side].head(stream_id, half.head)
        if kind == "body":
            size, padding = value
            data = bytes((len(half.body) + at) % 251 for at in range(size))
            half.body += data
            self.sides[side].body(stream_id, data, padding)
        else:
            half.is_complete, half.trailers = True, list(value)
            self.sides[side].finish(stream_id, half.trailers)

    def _carry(self, side: int, count: int) -> bool:
        wire = self.wires[side]
        wire += self.sides[side].output()
        part = bytes(wire[:count])
        del wire[:count]
        if part:
            self.sides[1 - side].receive(part)
        return bool(part)

    def _exchange(self, turns: int = 200) -> bool:
        """Carry all there is; whether the ends have come to rest."""
        for _ in range(turns):
            self.sides[0].take_all()
            self.sides[1].take_all()
            moved = self._carry(0, 2**30), self._carry(1, 2**30)
            if not any(moved):
                return True
        return False


values = st.one_of(
    st.sampled_from([b"", b"a", b"the same again", b"secret!", b"x" * 100]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30).map(str.encode),
)
fields = st.lists(st.tuples(st.sampled_from([b"x-a", b"x-b", b"user-agent", b"grpc-timeout"]), values), max_size=5)
side = st.integers(0, 1)
on_stream = st.tuples(side, st.integers(0, 7))
sizes = st.one_of(
    st.integers(0, 200), st.integers(0, 90_000), st.sampled_from([16_384, 16_385, 65_535, 65_536, 70_000])
)
setting = st.one_of(
    st.tuples(st.just(SettingCodes.INITIAL_WINDOW_SIZE), st.sampled_from([0, 1, 10, 1_000, 65_535, 200_000])),
    st.tuples(st.just(SettingCodes.MAX_FRAME_SIZE), st.sampled_from([16_384, 16_385, 100_000])),
    st.tuples(st.just(SettingCodes.HEADER_TABLE_SIZE), st.sampled_from([0, 1, 100, 4_096, 10_000])),
)
operation = st.one_of(
    st.tuples(st.just("open"), fields, st.none()),
    st.tuples(st.just("body"), on_stream, st.tuples(sizes, st.sampled_from([0, 0, 1, 17, 255]))),
    st.tuples(st.just("body"), on_stream, st.tuples(sizes, st.sampled_from([0, 0, 1, 17, 255]))),
    st.tuples(st.just("end"), on_stream, fields),
    st.tuples(st.just("reset"), on_stream, st.none()),
    st.tuples(st.just("take"), on_stream, st.none()),
    st.tuples(st.just("set"), setting, side),
    st.tuples(st.just("ping"), side, st.none()),
    st.tuples(st.just("carry"), side, st.one_of(st.integers(1, 40), st.just(100_000))),
    st.tuples(st.just("carry"), side, st.one_of(st.integers(1, 40), st.just(100_000))),
)


@pytest.fixture(scope="module", autouse=True)
def empty_frames_need_no_window() -> Iterator[None]:
    """h2 refuses an empty DATA frame while its window is below zero; RFC 9113 §6.9.1 allows it."""
    consumed = WindowManager.window_consumed
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(WindowManager, "window_consumed", lambda self, size: consumed(self, size) if size else None)
        yield


PAIRS = {
    "h2 calls us": (H2Side, OurSide),
    "we call h2": (OurSide, H2Side),
    "we call ourselves": (OurSide, OurSide),
}


@pytest.mark.parametrize("pair", PAIRS)
@given(operations=st.lists(operation, min_size=5, max_size=60))
@example(
    operations=[
        ("open", [], None),
        ("set", (SettingCodes.INITIAL_WINDOW_SIZE, 200_000), 1),
        ("body", (0, 0), (65_536, 0)),
        ("carry", 1, 100_000),
    ]
)
@settings(max_examples=60, derandomize=True)
def test_both_ends_hear_what_the_other_said(pair: str, operations: list[tuple[Any, ...]]) -> None:
    client, server = PAIRS[pair]
    conversation = Conversation(client(is_client=True), server(is_client=False))
    for each in [("open", [], None), *operations]:
        conversation.do(each)
    conversation.settle()
    conversation.check()
