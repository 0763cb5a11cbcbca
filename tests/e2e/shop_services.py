"""Typed services of the gateway tests: a shop with all arities, a stock, and a servicer that refuses."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
from google.rpc.error_details_pb2 import ErrorInfo

import mesh
from mesh.exceptions import GrpcStatusError
from tests.e2e.gate import small
from tests.unit.protos import shop_pb2, shop_pb2_grpc

Handle = mesh.DeploymentHandle[Any]
Item = shop_pb2.Item
Status = grpc.StatusCode
LONG = "x" * 1000


@small(max_ongoing_requests=100)
class Shop(shop_pb2_grpc.ShopServicer):
    """Inherits its service. The name of an item says what is to happen."""

    def __init__(self, gate: Handle, refuser: Handle) -> None:
        self._gate = gate
        self._refuser = refuser
        self._listed = 0

    async def listed(self) -> int:
        """Long items listed."""
        return self._listed

    async def Price(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        match request.name:
            case "metadata":
                sent = dict(context.invocation_metadata())
                return Item(name=f"{mesh.get_multiplexed_model_id()} {sent['request_id']} {sent['x-own']}")
            case "raise":
                raise LookupError("no such item")
            case "set code":
                context.set_code(Status.NOT_FOUND)
                context.set_details("sold out")
                context.set_trailing_metadata((("reason", "sold"), ("reason-bin", b"\0\xff")))
                return Item()
            case "abort":
                await context.abort(Status.FAILED_PRECONDITION, "closed", (("opens", "monday"),))
            case "set code, then raise":
                context.set_code(Status.DATA_LOSS)
                raise LookupError("lost")
            case "refused below":
                await self._refuser.check.remote(request.name)
            case "wrong type":
                return "not a message"
            case "initial metadata":
                context.set_compression(grpc.Compression.Gzip)
                await context.send_initial_metadata((("source", "cellar"), ("blob-bin", b"\0\xff")))
                return Item(name=LONG)
            case "wrong initial metadata":
                await context.send_initial_metadata((("Source", "cellar"),))
            case "answer":
                context.set_trailing_metadata((("weight", "7"),))
                return Item(name="answered", amount=request.amount)
        return Item(name=await self._gate.wait.remote(request.name))

    def List(self, request: Any, context: Any) -> Iterator[Any]:
        if request.name == "initial metadata":
            context.set_compression(grpc.Compression.Deflate)
            context.send_initial_metadata((("source", "cellar"),))
        for number in range(request.amount):
            self._listed += request.name == LONG
            yield Item(name=request.name, amount=number)
        if request.name == "raise":
            raise LookupError("list broke")

    async def Total(self, request_iterator: AsyncIterator[Any], context: Any) -> Any:
        return Item(amount=sum([item.amount async for item in request_iterator]))

    async def Haggle(self, request_iterator: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for item in request_iterator:
            if item.name:
                await self._gate.wait.remote(item.name)
            yield Item(amount=item.amount + 1)


@small
class Refuser:
    def check(self, name: str) -> None:
        raise GrpcStatusError.with_details(Status.FAILED_PRECONDITION, "not today", ErrorInfo(reason=name))


@small(max_ongoing_requests=100)
class Stock:
    """Inherits nothing: `mesh.start` was given the function that adds the Stock service."""

    def Price(self, request: Any) -> Any:
        return Item(name="from stock", amount=request.amount)

    async def Count(self, request: Any, grpc_context: Any) -> Any:
        """The first replica that sees the name of a file that does not exist makes the file and dies."""
        if request.name and not Path(request.name).exists():  # noqa: ASYNC240 - it dies anyway
            Path(request.name).touch()  # noqa: ASYNC240
            os.kill(os.getpid(), signal.SIGKILL)
        grpc_context.set_trailing_metadata((("counted", "yes"),))
        return Item(amount=request.amount + 1)


@small
class OtherStock:
    """Serves the Stock service too, with other answers."""

    def Count(self, request: Any) -> Any:
        return Item(amount=request.amount + 100)
