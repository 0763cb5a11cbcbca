"""A grpc.aio server and its closed-loop client without a mesh: the base that every row is compared with.

It only needs grpcio and uvloop, so that it also runs in the temporary environments of `grpcio_versions`:

    python -m benchmarks.raw_peer serve
    python -m benchmarks.raw_peer client unary 127.0.0.1:50051 --in-flight 16 --seconds 2
"""

import argparse
import asyncio
import itertools
import json
import os
import random
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
import uvloop

from benchmarks.closed_loop import Lap, closed_loop, counted_loop, timed_loop
from benchmarks.processes import CpuMeter, Roles

SERVICE = "/bench.v1.Bench/"
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0))
ID_BYTES = 8
STREAM_ITEMS = 1_000
OWN_PID = 0
"""Stands for this client among the processes whose CPU time it measures."""
WARM_UP_SHARE = 0.2
CANCEL_AFTER_S = (0.3, 0.4)
"""Long enough for a server to tell it from a rapid reset attack, also when this client sends late."""

Figures = dict[str, float]


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


async def serve(arguments: argparse.Namespace) -> None:
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((RawHandlers(),))
    if arguments.tls:
        port = server.add_secure_port("127.0.0.1:0", credentials(Path(arguments.tls)))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


def credentials(directory: Path) -> grpc.ServerCredentials:
    key, certificate = ((directory / name).read_bytes() for name in ("key.pem", "certificate.pem"))
    return grpc.ssl_server_credentials([(key, certificate)])


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


async def measure_unary(channel: grpc.aio.Channel, arguments: argparse.Namespace) -> Figures:
    """As many calls as fit into the time after a warm-up."""
    method = channel.unary_unary(SERVICE + "Echo")
    body = bytes(arguments.bytes)

    async def call() -> int:
        await method(body)
        return 1

    rate = await closed_loop(call, arguments.in_flight, arguments.seconds * WARM_UP_SHARE)
    meter = CpuMeter(roles_of(arguments.process))
    lap = await counted_loop(call, arguments.in_flight, max(round(rate * arguments.seconds), arguments.in_flight))
    return figures_of(lap, meter)


def roles_of(processes: list[str]) -> Roles:
    """The processes of which the CPU time is measured, from ROLE=PID,PID."""
    named = (text.split("=") for text in processes)
    return {role: tuple(int(pid) or os.getpid() for pid in pids.split(",")) for role, pids in named}


def figures_of(lap: Lap, meter: CpuMeter) -> Figures:
    """The CPU time is that of the processes that are named."""
    cpu_us = meter.us_per_call(lap.calls)
    all_us = {"cpu": sum(cpu_us.values())} if cpu_us else {}
    return {
        "rate": lap.rate,
        "p50": lap.p50_us,
        "p99": lap.p99_us,
        **{f"cpu_{role}": value for role, value in cpu_us.items()},
        **all_us,
    }


async def measure_chat(channel: grpc.aio.Channel, arguments: argparse.Namespace) -> Figures:
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
    return {"rate": rate}


async def measure_stream(channel: grpc.aio.Channel, arguments: argparse.Namespace) -> Figures:
    """Server streams that are read one after the other, whole. The rate and the CPU time are of their items."""
    method = channel.unary_stream(SERVICE + "Stream")
    request = bytes.fromhex(arguments.request_hex) if arguments.request_hex else bytes(arguments.bytes)
    metadata = metadata_of(arguments)

    async def one_stream() -> int:
        call = method(request, metadata=metadata)
        items = 0
        while await call.read() is not grpc.aio.EOF:
            items += 1
        return items

    await timed_loop(one_stream, arguments.seconds * WARM_UP_SHARE)
    meter = CpuMeter(roles_of(arguments.process))
    return figures_of(await timed_loop(one_stream, arguments.seconds), meter)


async def measure_cancelled(channel: grpc.aio.Channel, arguments: argparse.Namespace) -> Figures:
    """Calls that get no answer and are cancelled by this client."""
    method = channel.unary_stream(SERVICE + "Watch")
    metadata = metadata_of(arguments)
    dice = random.Random(0)

    async def call() -> int:
        watch = method(b"", metadata=metadata)
        await asyncio.sleep(dice.uniform(*CANCEL_AFTER_S))
        if not watch.cancel():
            raise RuntimeError(f"the call had ended before its cancel: {await watch.code()} {await watch.details()}")
        return 1

    return {"rate": (await counted_loop(call, arguments.in_flight, arguments.calls)).rate}


def metadata_of(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    return [tuple(pair.split("=", 1)) for pair in arguments.metadata]


MEASUREMENTS = {
    "unary": measure_unary,
    "stream": measure_stream,
    "chat": measure_chat,
    "coalesced": measure_chat,
    "cancelled": measure_cancelled,
}


async def client(arguments: argparse.Namespace) -> None:
    async with grpc.aio.insecure_channel(arguments.address, options=OPTIONS) as channel:
        print(json.dumps(await MEASUREMENTS[arguments.kind](channel, arguments)), flush=True)
        # After very many cancels grpc.aio can wait without end for the thread that it stops.
        os._exit(0)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    server = roles.add_parser("serve")
    server.add_argument("--tls", metavar="DIRECTORY", help="with key.pem and certificate.pem")
    caller = roles.add_parser("client")
    caller.add_argument("kind", choices=sorted(MEASUREMENTS))
    caller.add_argument("address")
    caller.add_argument("--in-flight", type=int, default=1)
    caller.add_argument("--seconds", type=float, default=2.0)
    caller.add_argument("--calls", type=int, default=1_000, help="to cancel")
    caller.add_argument(
        "--process",
        action="append",
        default=[],
        metavar="ROLE=PID,PID",
        help=f"whose CPU time per call or item is measured; {OWN_PID}: this client",
    )
    caller.add_argument("--bytes", type=int, default=100)
    caller.add_argument("--request-hex", default="", help="the request message of a stream, instead of zero bytes")
    caller.add_argument("--metadata", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    uvloop.run(serve(arguments) if arguments.role == "serve" else client(arguments))


if __name__ == "__main__":
    main()
