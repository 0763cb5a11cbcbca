"""The deployments of every system: an echo that is called, and a caller that runs the closed loops.

The mesh and Ray Serve get the same classes; only the decorator differs.
"""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator
from typing import Any

import numpy as np

from benchmarks import echo_pb2_grpc
from benchmarks.closed_loop import Lap, closed_loop, counted_loop, timed_loop
from benchmarks.echo_pb2 import EchoMessage, StreamRequest
from benchmarks.raw_peer import STREAM_ITEMS

PAYLOAD = bytes(100)
ARRAY_BYTES = 10 * 2**20
CANCEL_AFTER_MAX_S = 0.002


class Echo(echo_pb2_grpc.BenchServicer):
    """Returns its argument, through handles and through the gateway; HTTP requests get no more than "ok"."""

    def __init__(self) -> None:
        self._watching = 0

    async def Echo(self, request: EchoMessage) -> EchoMessage:
        return request

    async def Stream(self, request: StreamRequest) -> AsyncIterator[EchoMessage]:
        for _ in range(request.items):
            yield EchoMessage(body=request.body)

    async def Watch(self, request: EchoMessage) -> AsyncIterator[EchoMessage]:
        self._watching += 1
        try:
            await asyncio.Event().wait()
            yield request
        finally:
            self._watching -= 1

    async def __call__(self, request: Any) -> str:
        """Of an HTTP request."""
        return "ok"

    async def echo(self, value: Any) -> Any:
        return value

    async def items(self, count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield PAYLOAD

    async def wait_forever(self) -> None:
        await asyncio.Event().wait()

    async def watching(self) -> int:
        """Calls of Watch that are open."""
        return self._watching

    async def pid(self) -> int:
        return os.getpid()


class Caller(echo_pb2_grpc.BenchServicer):
    """Calls the echo through a handle, as a deployment that uses another one does. Through the gateway it relays."""

    def __init__(self, echo: Any, call_options: dict[str, str]) -> None:
        self._echo = echo.options(**call_options) if call_options else echo
        self._relay = self._echo.options(method_name="echo")

    async def Echo(self, request: EchoMessage) -> EchoMessage:
        return EchoMessage(body=await self._relay.remote(request.body))

    async def pid(self) -> int:
        return os.getpid()

    async def ask_echo(self, method: str) -> int:
        return await self._echo.options(method_name=method).remote()

    async def warm_up(self, in_flight: int, seconds: float) -> float:
        """Calls per second, which tell how many calls to measure."""
        return await closed_loop(self._call, in_flight, seconds)

    async def unary(self, in_flight: int, calls: int) -> Lap:
        return await counted_loop(self._call, in_flight, calls)

    async def _call(self) -> int:
        await self._relay.remote(PAYLOAD)
        return 1

    async def stream(self, seconds: float) -> Lap:
        """Streams that are read one after the other."""
        method = self._echo.options(method_name="items", stream=True)

        async def one_stream() -> int:
            items = 0
            async for _ in method.remote(STREAM_ITEMS):
                items += 1
            return items

        return await timed_loop(one_stream, seconds)

    async def array(self, seconds: float, array_bytes: int = ARRAY_BYTES) -> Lap:
        method = self._echo.options(method_name="echo")
        array = np.arange(array_bytes // 8)

        async def call() -> int:
            answer = await method.remote(array)
            assert answer.nbytes == array_bytes
            return 1

        return await timed_loop(call, seconds)

    async def many_cancelled(self, calls: int, in_flight: int) -> None:
        method = self._echo.options(method_name="wait_forever")
        dice = random.Random(0)

        async def cancel_in_turn() -> None:
            for _ in range(calls // in_flight):
                response = method.remote()
                await asyncio.sleep(dice.random() * CANCEL_AFTER_MAX_S)
                response.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await response

        await asyncio.gather(*(cancel_in_turn() for _ in range(in_flight)))
