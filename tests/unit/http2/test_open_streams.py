"""What open streams take in memory by themselves is counted, so that heads without requests cannot take it all."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import pytest

from mesh.http2 import frame_format as wire
from mesh.http2.frame_format import ErrorCode
from mesh.http2.hpack_decoder import Field
from mesh.http2.limits import BufferBudget, Limits
from mesh.http2.server_connection import ServerConnection
from mesh.http2.stream import Stream
from tests.unit.fakes.http2_ends import (
    REQUEST,
    ServerEnd,
    data,
    echo,
    failures,
    headers,
    read_frames,
    rst_stream,
    settings,
)
from tests.unit.http2.flooding import streams

BUDGET_BYTES = 16 * 1024 * 1024
TINY_FIELDS = tuple((b"a", b"%d" % number) for number in range(380))
LIMITS = Limits(streams_max=10_000, control_burst=20_000)


class Heads:
    """A server that keeps the heads of its requests and answers none."""

    def __init__(self, budget: BufferBudget | None = None) -> None:
        self.budget = budget or BufferBudget(BUDGET_BYTES)
        self.kept: dict[int, object] = {}
        self.connection = ServerConnection(list, self._keep, LIMITS, time.monotonic, lambda: None, self.budget)
        self.connection.receive(wire.PREFACE + settings())
        self.refused: list[int] = []

    def _keep(self, stream: Stream, head: list[Field] | None) -> None:
        self.kept[stream.id] = head

    def receive(self, *frames: bytes) -> None:
        self.connection.receive(b"".join(frames))
        written = b"".join(self.connection.take_output())
        self.refused += [
            stream_id for stream_id, code in failures(read_frames(written)) if code is ErrorCode.REFUSED_STREAM
        ]


def small(stream_id: int) -> bytes:
    return headers(stream_id, (*REQUEST, (b"x-id", b"%d" % stream_id)))


def large(stream_id: int) -> bytes:
    return headers(stream_id, (*REQUEST, (b"x-id", b"%d" % stream_id), *TINY_FIELDS))


@pytest.mark.parametrize("head", [small, large])
def test_streams_are_refused_before_their_heads_take_more_than_the_budget(head: Callable[[int], bytes]) -> None:
    server = Heads()
    for stream_id in streams(3_000):
        server.receive(head(stream_id))
    assert server.connection.fault is None
    assert 100 <= len(server.kept) < 2_000
    assert server.refused == sorted(set(streams(3_000)) - server.kept.keys())
    taken = sum(_size(each) for each in server.kept.values())
    assert taken < server.budget.used_bytes < BUDGET_BYTES / 2


def test_a_few_usual_streams_are_not_counted() -> None:
    server = Heads(BufferBudget(0))
    for stream_id in streams(100):
        server.receive(small(stream_id))
    assert len(server.kept) == 100
    assert not server.budget.used_bytes
    server.receive(small(201))
    assert server.refused == [201]


def test_what_was_counted_is_given_back_however_a_stream_ends() -> None:
    server = ServerEnd(answer=echo)
    share = server.connection.outbox.share
    for stream_id in (1, 3, 5, 7):
        server.receive(large(stream_id))
    assert share.used_bytes
    server.receive(data(1, b"x", ends=True), rst_stream(3))
    server.connection.reset(server.exchanges[5].stream)
    assert share.used_bytes
    server.connection.close(ErrorCode.CONNECT_ERROR)
    assert not share.used_bytes


def test_a_head_that_repeats_itself_is_one_in_memory() -> None:
    server = Heads()
    server.receive(*(headers(stream_id) for stream_id in streams(101)))
    flat_bytes = server.budget.used_bytes
    server.receive(headers(203))
    assert server.budget.used_bytes == 2 * flat_bytes
    assert server.kept[203] is server.kept[1]


def _size(head: object) -> int:
    assert isinstance(head, list)
    return sys.getsizeof(head) + sum(sys.getsizeof(part) for field in head for part in (field, *field))
