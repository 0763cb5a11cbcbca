"""Headers that cost much time or memory for few bytes: they do not delay other connections, nor fill the process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mesh.http2 import frame_format as wire
from mesh.http2.hpack_decoder import HeaderDecoder
from mesh.http2.hpack_encoder import encode_field, encode_fields
from mesh.http2.limits import Limits
from mesh.http2.server_connection import ServerConnection
from mesh.http2.transport import Http2Transport
from tests.unit.fakes.fake_socket import FakeSocket
from tests.unit.fakes.http2_ends import (
    REQUEST,
    FakeClock,
    headers,
    settings,
)
from tests.unit.fakes.rpc_ends import until

LARGE_ENTRY = b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4_000
"""Put into the dynamic table, where `\\xbe` refers to it."""

# ---- Time ------------------------------------------------------------------------------------------------------------


class ReadableSocket(FakeSocket):
    def pause_reading(self) -> None:
        """Nothing is sent here."""

    resume_reading = pause_reading

    def is_closing(self) -> bool:
        return self.is_closed


@pytest.mark.parametrize(("step_s", "read_at_once"), [(0.0, 256), (0.004, 96), (1.0, 64)])
def test_a_turn_of_reading_ends_when_it_has_taken_long(step_s: float, read_at_once: int) -> None:
    """Whatever makes frames slow to read. Each step begins by a look at the clock."""
    clock = FakeClock()
    accepted: list[int] = []

    def slow_clock() -> float:
        clock.advance(step_s)
        return clock()

    def make(_: Http2Transport, on_output: Any) -> ServerConnection[Any]:
        return ServerConnection(dict, lambda stream, head: accepted.append(stream.id), Limits(), slow_clock, on_output)

    async def run() -> None:
        transport = Http2Transport(make, lambda _: None)
        transport.connection_made(ReadableSocket())
        transport.data_received(wire.PREFACE + settings())
        transport.data_received(b"".join(headers(2 * number + 1) for number in range(300)))
        assert len(accepted) == read_at_once
        await until(lambda: len(accepted) == 300, "the rest")

    asyncio.run(run())
    assert accepted == [2 * number + 1 for number in range(300)]


# ---- Memory of connections -------------------------------------------------------------------------------------------


def test_what_is_kept_of_blocks_that_refer_to_a_large_entry_is_bounded() -> None:
    made: list[int] = []
    tested: HeaderDecoder[int] = HeaderDecoder(lambda fields: made.append(sum(map(len, dict(fields)))) or 1, 16 * 1024)
    tested.decode(LARGE_ENTRY)
    for number in range(500):
        tested.decode(b"\xbe\xbe\xbe" + encode_field(b"n", b"%d" % number))
        assert tested._kept_bytes <= 64 * 1024
        assert len(tested._kept) <= 6


def test_usual_blocks_are_all_kept() -> None:
    made: list[Any] = []
    tested: HeaderDecoder[int] = HeaderDecoder(lambda fields: made.append(fields) or 1, 16 * 1024)
    for _ in range(2):
        for number in range(60):
            tested.decode(encode_fields((*REQUEST, (b"n", b"%d" % number))))
    assert len(made) == 60
    assert tested.list_bytes == 0
