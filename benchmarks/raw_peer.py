"""A grpc.aio server and its closed-loop client without a mesh: the base that every row is compared with.

It only needs grpcio and uvloop, so that it also runs in the temporary environments of `grpcio_versions`:

    python benchmarks/raw_peer.py serve
    python benchmarks/raw_peer.py client unary 127.0.0.1:50051 --in-flight 16 --seconds 2
"""

import argparse
import asyncio
import itertools
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import grpc
import grpc.aio
import uvloop

SERVICE = "/bench.v1.Bench/"
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0))
ID_BYTES = 8
WARM_UP_SHARE = 0.2
STREAM_ITEMS = 1_000

Call = Callable[[], Awaitable[int]]
"""Does one round and returns its number of calls or items."""


# ---------------------------------------------------------------------------------------------------- server


async def echo(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
    return request


async def chat(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
    async for request in requests:
        await context.write(request)


async def stream(request: bytes, context: grpc.aio.ServicerContext) -> None:
    """Ignores the content of the request and sends `STREAM_ITEMS` messages that repeat the request's bytes."""
    for _ in range(STREAM_ITEMS):
        await context.write(request)


class RawHandlers(grpc.GenericRpcHandler):
    """The echo service with bytes in and bytes out."""

    def __init__(self) -> None:
        self._handlers = {
            SERVICE + "Echo": grpc.unary_unary_rpc_method_handler(echo),
            SERVICE + "Chat": grpc.stream_stream_rpc_method_handler(chat),
            SERVICE + "Stream": grpc.unary_stream_rpc_method_handler(stream),
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._handlers.get(handler_call_details.method)


async def serve() -> None:
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((RawHandlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


# ---------------------------------------------------------------------------------------------------- client


@dataclass
class Multiplexer:
    """Many calls on one bidirectional stream. Coalesced: frames that are ready together are sent as one message."""

    stream: grpc.aio.StreamStreamCall
    is_coalesced: bool
    frame_bytes: int
    _waiting: dict[bytes, asyncio.Future[int]] = field(default_factory=dict)
    _outbox: deque[bytes] = field(default_factory=deque)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(self, call_id: bytes, body: bytes) -> int:
        answered = asyncio.get_running_loop().create_future()
        self._waiting[call_id] = answered
        self._outbox.append(call_id + body)
        self._wake.set()
        return await answered

    async def write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outbox:
                await self.stream.write(self._next_message())

    def _next_message(self) -> bytes:
        if not self.is_coalesced:
            return self._outbox.popleft()
        message = b"".join(self._outbox)
        self._outbox.clear()
        return message

    async def read(self) -> None:
        while (message := await self.stream.read()) is not grpc.aio.EOF:
            for start in range(0, len(message), self.frame_bytes):
                self._waiting.pop(message[start : start + ID_BYTES]).set_result(1)


async def closed_loop(call: Call, in_flight: int, seconds: float) -> float:
    """Calls per second of `in_flight` callers, each of which waits for its answer before its next call."""
    done = 0
    is_over = False

    async def caller() -> None:
        nonlocal done
        while not is_over:
            count = await call()
            done += count

    callers = [asyncio.create_task(caller()) for _ in range(in_flight)]
    await asyncio.sleep(seconds * WARM_UP_SHARE)
    started, done_before = time.perf_counter(), done
    await asyncio.sleep(seconds)
    rate = (done - done_before) / (time.perf_counter() - started)
    is_over = True
    await asyncio.gather(*callers)
    return rate


async def measure_unary(channel: grpc.aio.Channel, arguments: argparse.Namespace) -> float:
    method = channel.unary_unary(SERVICE + "Echo")
    body = bytes(arguments.bytes)

    async def call() -> int:
        await method(body)
        return 1

    return await closed_loop(call, arguments.in_flight, arguments.seconds)


async def measure_chat(channel: grpc.aio.Channel, arguments: argparse.Namespace) -> float:
    body = bytes(arguments.bytes)
    call = channel.stream_stream(SERVICE + "Chat")()
    multiplexer = Multiplexer(call, arguments.kind == "coalesced", ID_BYTES + arguments.bytes)
    pumps = [asyncio.create_task(multiplexer.write()), asyncio.create_task(multiplexer.read())]
    numbers = itertools.count()
    rate = await closed_loop(
        lambda: multiplexer.call(next(numbers).to_bytes(ID_BYTES, "big"), body), arguments.in_flight, arguments.seconds
    )
    for pump in pumps:
        pump.cancel()
    await asyncio.gather(*pumps, return_exceptions=True)
    call.cancel()
    return rate


async def measure_stream(channel: grpc.aio.Channel, arguments: argparse.Namespace) -> float:
    """Items per second of sequential server streams; the rate covers complete streams only."""
    method = channel.unary_stream(SERVICE + "Stream")
    request = bytes.fromhex(arguments.request_hex) if arguments.request_hex else bytes(arguments.bytes)
    metadata = [tuple(pair.split("=", 1)) for pair in arguments.metadata]

    async def one_stream() -> int:
        call = method(request, metadata=metadata)
        items = 0
        while await call.read() is not grpc.aio.EOF:
            items += 1
        return items

    await one_stream()
    items, started = 0, time.perf_counter()
    while time.perf_counter() - started < arguments.seconds:
        items += await one_stream()
    return items / (time.perf_counter() - started)


MEASUREMENTS = {
    "unary": measure_unary,
    "stream": measure_stream,
    "chat": measure_chat,
    "coalesced": measure_chat,
}


async def client(arguments: argparse.Namespace) -> None:
    async with grpc.aio.insecure_channel(arguments.address, options=OPTIONS) as channel:
        rate = await MEASUREMENTS[arguments.kind](channel, arguments)
    print(json.dumps({"rate": rate, "grpcio": grpc.__version__}))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    roles.add_parser("serve")
    caller = roles.add_parser("client")
    caller.add_argument("kind", choices=sorted(MEASUREMENTS))
    caller.add_argument("address")
    caller.add_argument("--in-flight", type=int, default=1)
    caller.add_argument("--seconds", type=float, default=2.0)
    caller.add_argument("--bytes", type=int, default=100)
    caller.add_argument("--request-hex", default="", help="the request message of a stream, instead of zero bytes")
    caller.add_argument("--metadata", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    uvloop.run(serve() if arguments.role == "serve" else client(arguments))


if __name__ == "__main__":
    main()
