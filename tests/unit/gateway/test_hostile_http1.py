"""Hostile clients of HTTP/1.1 on real sockets: right statuses, memory flat, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager

import pytest

from gateway.http1.http1_limits import Http1Limits
from gateway.requests.exchange import Exchange
from mesh.http2.upkeep import UpkeepPolicy
from tests.unit.fakes.http1_ends import answers, request
from tests.unit.fakes.memory_peak import memory_peak
from tests.unit.gateway.fakes import FakeRouter, Gateway, on_io_loop, until
from tests.unit.gateway.open_ports import Pages

PATIENT = Http1Limits()
READ_MAX_BYTES = 256 * 1024
"""What uvloop reads at a time, so what may come with the last bytes that a connection still takes."""

pytestmark = pytest.mark.usefixtures("eager_upkeep")


def ok(exchange: Exchange) -> None:
    exchange.send_whole(200, [], b"ok")


@asynccontextmanager
async def listening(
    opener: Callable[[Exchange], object] | None = ok, limits: Http1Limits = PATIENT
) -> AsyncIterator[tuple[Gateway, Pages]]:
    pages = Pages(opener)  # type: ignore[arg-type]
    gateway = Gateway(FakeRouter(), policy=UpkeepPolicy(unread_timeout_s=0.2), http1=limits)
    gateway.listener.add_dialects(pages)
    gateway.port = await gateway.listener.start("127.0.0.1", 0)
    try:
        yield gateway, pages
        await until(lambda: not gateway.listener.connections, "all connections are gone")
        assert gateway.listener.exchanges == gateway.listener.buffered_bytes == 0
    finally:
        gateway.health.close()
        await gateway.listener.stop(0)


async def connect(gateway: Gateway) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", gateway.port)


async def status_of(gateway: Gateway, *pieces: bytes) -> int:
    """The status of the last answer to what is sent, until the server closes the connection."""
    reader, writer = await connect(gateway)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    async with asyncio.timeout(30):
        data = await reader.read()
    writer.close()
    return answers(data)[-1][0]


def test_slow_heads_get_408_back() -> None:
    async def scenario() -> None:
        async with listening(limits=Http1Limits(head_timeout_s=0.5)) as (gateway, _):
            assert await status_of(gateway, b"GET / HTTP/1.1\r\nhost: a\r\nx-a: ") == 408

    on_io_loop(scenario())


def test_slow_bodies_get_408_and_their_exchanges_end() -> None:
    async def scenario() -> None:
        async with listening(None, Http1Limits(body_timeout_s=0.1)) as (gateway, pages):
            assert await status_of(gateway, request("POST / HTTP/1.1", "content-length: 5"), b"he") == 408
            assert pages.keepers[0].broken

    on_io_loop(scenario())


def test_silent_and_idle_clients_are_closed() -> None:
    async def scenario() -> None:
        async with listening(limits=Http1Limits(keep_alive_timeout_s=0.1)) as (gateway, _):
            reader, writer = await connect(gateway)
            writer.write(request())
            async with asyncio.timeout(30):
                assert answers(await reader.read())[0][0] == 200
            writer.close()

    on_io_loop(scenario())


def test_clients_that_do_not_read_are_aborted() -> None:
    async def scenario() -> None:
        async with listening(lambda exchange: exchange.send_whole(200, [], bytes(20_000_000)) and None) as (gateway, _):
            _, writer = await connect(gateway)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(request())
            await until(lambda: gateway.listener.buffered_bytes > 1_000_000, "the answer waits")
            await until(lambda: not gateway.listener.connections, "the client is given up")
            assert gateway.listener.buffered_bytes == 0
            writer.close()

    on_io_loop(scenario())


FLOODS: dict[str, tuple[list[bytes], int]] = {
    "fields": ([b"GET / HTTP/1.1\r\nhost: a\r\n"] + [b"x: y\r\n"] * 10_000, 431),
    "a field without end": ([b"GET / HTTP/1.1\r\nx: "] + [b"y" * 10_000] * 100, 431),
    "a target without end": ([b"GET /"] + [b"y" * 10_000] * 100, 414),
    "empty lines": ([b"\r\n" * 10_000] * 100, 400),
    "bytes that are nothing": ([b"\0" * 1_000] * 5, 400),
    "an extension without end": (
        [request("POST / HTTP/1.1", "transfer-encoding: chunked"), b"5;"] + [b"y" * 10_000] * 100,
        400,
    ),
    "extensions": (
        [request("POST / HTTP/1.1", "transfer-encoding: chunked")] + [b"1;" + b"y" * 1_000 + b"\r\nx\r\n"] * 1_000,
        400,
    ),
    "trailers": (
        [request("POST / HTTP/1.1", "transfer-encoding: chunked"), b"0\r\n"] + [b"x: y\r\n"] * 10_000,
        431,
    ),
}


@pytest.mark.parametrize(("name", "status"), [(name, status) for name, (_, status) in FLOODS.items()], ids=FLOODS)
def test_floods_are_answered_and_take_no_memory(alone: ProcessPoolExecutor, name: str, status: int) -> None:
    statuses, peak_bytes = alone.submit(flooded, name).result(60)
    assert statuses == [status] * 4
    assert peak_bytes < 1_000_000


def flooded(name: str) -> tuple[list[int], int]:
    """The statuses of four floods, and how much memory the last three have taken at most, their clients' included."""
    pieces, _ = FLOODS[name]

    async def flood(gateway: Gateway) -> int:
        reader, writer = await connect(gateway)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass
        async with asyncio.timeout(30):
            data = await reader.read()
        writer.close()
        return answers(data)[-1][0]

    async def scenario() -> tuple[list[int], int]:
        async with listening(None, Http1Limits(linger_timeout_s=5)) as (gateway, _):
            statuses = [await flood(gateway)]
            with memory_peak() as peak:
                statuses += [await flood(gateway) for _ in range(3)]
            return statuses, peak.bytes

    return on_io_loop(scenario())


def test_a_flood_of_pipelined_requests_is_answered_in_order_and_others_are_served_meanwhile() -> None:
    count = 10_000

    async def scenario() -> None:
        async with listening(lambda exchange: exchange.send_whole(200, [], exchange.head.query) and None) as (
            gateway,
            _,
        ):
            reader, writer = await connect(gateway)
            flood = b"".join(request(f"GET /?{number} HTTP/1.1") for number in range(count))

            async def read_all() -> bytes:
                data = b""
                while data.count(b"HTTP/1.1 200 OK") < count or not data.endswith(b"%d" % (count - 1)):
                    piece = await reader.read(2**20)
                    assert piece
                    data += piece
                return data

            reading = asyncio.ensure_future(read_all())
            writer.write(flood)
            others = 0
            while not reading.done():
                assert await status_of(gateway, request("GET / HTTP/1.1", "connection: close")) == 200
                others += 1
            data = await reading
            assert others > 3
            bodies = [each.rpartition(b"\r\n\r\n")[2] for each in data.split(b"HTTP/1.1 200 OK")[1:]]
            assert bodies == [b"%d" % number for number in range(count)]
            writer.close()

    on_io_loop(scenario())


def test_a_client_that_floods_and_never_reads_costs_a_bounded_amount() -> None:
    buffered_max_bytes = PATIENT.pipelined_max_bytes + READ_MAX_BYTES + 100_000

    async def scenario() -> None:
        async with listening(lambda exchange: exchange.send_whole(200, [], bytes(10_000)) and None) as (gateway, _):
            peer = socket.create_connection(("127.0.0.1", gateway.port))
            peer.setblocking(False)
            loop = asyncio.get_running_loop()
            sent = 0
            with contextlib.suppress(ConnectionError):
                while sent < 20_000_000:
                    await asyncio.wait_for(loop.sock_sendall(peer, request() * 1_000), 30)
                    sent += 1_000 * len(request())
                    assert gateway.listener.buffered_bytes < buffered_max_bytes
            assert sent < 20_000_000
            peer.close()

    on_io_loop(scenario())


def test_a_client_that_half_closes_behind_its_request_counts_as_one_that_has_left() -> None:
    """It cannot be distinguished from one that has closed its socket; an answer that is ready still reaches it."""

    async def scenario() -> None:
        async with listening() as (gateway, _):
            reader, writer = await connect(gateway)
            writer.write(request())
            writer.write_eof()
            assert answers(await reader.read())[0][0] == 200
            writer.close()
        async with listening(None) as (gateway, pages):
            reader, writer = await connect(gateway)
            writer.write(request())
            writer.write_eof()
            await until(lambda: pages.keepers and pages.keepers[0].broken, "the exchange ends")
            assert await reader.read() == b""
            writer.close()

    on_io_loop(scenario())


def test_a_client_that_half_closes_in_the_middle_gets_400_back() -> None:
    async def scenario() -> None:
        async with listening(None) as (gateway, _):
            for data in (b"GET / HT", request("POST / HTTP/1.1", "content-length: 9", body=b"part")):
                reader, writer = await connect(gateway)
                writer.write(data)
                writer.write_eof()
                assert answers(await reader.read())[0][0] == 400
                writer.close()

    on_io_loop(scenario())


def test_a_large_upload_that_is_refused_early_reads_its_answer() -> None:
    """The client sends on for a while; closing at once would break the connection before it has read why."""

    async def scenario() -> None:
        async with listening(lambda exchange: exchange.send_whole(413, [], b"too large") and None) as (gateway, _):
            reader, writer = await connect(gateway)
            writer.write(request("POST / HTTP/1.1", "content-length: 100000000"))
            for _ in range(50):
                writer.write(bytes(100_000))
                await asyncio.wait_for(writer.drain(), 30)
            assert answers(await reader.read())[0][::2] == (413, b"too large")
            writer.close()

    on_io_loop(scenario())


def test_many_clients_that_come_and_go_leave_nothing() -> None:
    async def scenario() -> None:
        async with listening() as (gateway, _):
            for data in (b"", b"G", b"PRI * ", request(), request() + b"GET", b"POST / HTTP/1.1\r\n"):
                for _ in range(30):
                    _, writer = await connect(gateway)
                    writer.write(data)
                    writer.transport.abort()
            assert await status_of(gateway, request("GET / HTTP/1.1", "connection: close")) == 200

    on_io_loop(scenario())
