"""A socket that is not there, as asyncio's transports are."""

from __future__ import annotations

from typing import Any

from tests.unit.fakes.http2_ends import Frame, read_frames


class FakeSocket:
    """What asyncio calls a transport; it keeps what is written."""

    def __init__(self, address: Any = ("10.0.0.1", 4711)) -> None:
        self._address = address
        self.written = bytearray()
        self.writes = 0
        self.high = 0
        self.is_closed = self.is_aborted = False

    def get_extra_info(self, name: str) -> Any:
        return self._address if name == "peername" else None

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high

    def write(self, data: bytes) -> None:
        self.writes += 1
        self.written += data

    def writelines(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True

    def frames(self) -> list[Frame]:
        """What was written since the last time."""
        written, self.written = bytes(self.written), bytearray()
        return read_frames(written)
