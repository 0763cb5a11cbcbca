"""Messages of a link: what each one brings about may leave before the next one is read."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from mesh.http2.write_turn import ENOUGH, write_turn
from mesh.link.link_stream import LinkStream

STREAM: Any = SimpleNamespace(connection=SimpleNamespace(give_room=lambda stream, size: None), has_ended=False)


def message(body: bytes) -> bytes:
    return b"\0" + len(body).to_bytes(4, "big") + body


def test_what_one_message_brings_about_leaves_before_the_next_one_is_read() -> None:
    """A client works on the first answers while the gateway reads the others."""
    events: list[str] = []

    async def read_two() -> None:
        turn = write_turn()

        def on_message(data: bytes) -> None:
            events.append(data.decode())
            turn.add(lambda: events.append(f"written after {data.decode()}"))
            turn.waiting += ENOUGH

        receiver = LinkStream(on_message, lambda reason, code: events.append(reason))
        turn.begin()
        for name in (b"first", b"second"):
            data = message(name)
            receiver.on_data(STREAM, data, 0, len(data))
        events.append("read")
        turn.end()

    asyncio.run(read_two())
    assert events == ["first", "written after first", "second", "written after second", "read"]
