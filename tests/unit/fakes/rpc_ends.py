"""Servers and clients of the shop service, ours and stock ones, on every kind of socket."""

from __future__ import annotations

import asyncio
import atexit
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
import pytest

from mesh.http2.client_connection import ClientConnection
from mesh.http2.hpack_decoder import Field
from mesh.http2.hpack_encoder import encode_fields
from mesh.http2.limits import Limits
from mesh.http2.stream import Stream
from mesh.http2.transport import Http2Transport
from mesh.http2.upkeep import UpkeepPolicy
from mesh.rpc.method_handlers import MethodHandlers
from mesh.rpc.request_head import read_request_head
from mesh.rpc.rpc_channel import RpcChannel
from mesh.rpc.rpc_server import RpcServer
from tests.unit.fakes.client_programs import sold_out
from tests.unit.fakes.small_mesh import on_io
from tests.unit.fakes.waiting import until_async as until
from tests.unit.protos import shop_pb2 as shop
from tests.unit.protos import shop_pb2_grpc

DEADLINE_S = 30.0
Item = shop.Item
T = TypeVar("T")


def scenario(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run it on the I/O loop, and see that no call leaves a task there."""

    async def run() -> T:
        result = await coroutine
        await until(lambda: not rpc_tasks(), "the tasks of calls end")
        return result

    return on_io(run())


def rpc_tasks() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith(("rpc ", "connect to"))]


@dataclass
class Seen:
    """What servicers note."""

    started: int = 0
    cancelled: int = 0
    finished: int = 0
    requests: list[int] = field(default_factory=list)


class AsyncShop(shop_pb2_grpc.ShopServicer):
    """The name of an item says what is to happen."""

    def __init__(self) -> None:
        self.seen = Seen()

    async def Price(self, request: Any, context: Any) -> Any:
        self.seen.started += 1
        match request.name:
            case "abort":
                await context.abort(grpc.StatusCode.NOT_FOUND, "nö 100%\n☃", (("why", "none"), ("why-bin", b"\0,\xff")))
            case "details":
                await context.abort_with_status(sold_out())
            case "fail":
                raise RuntimeError("broken")
            case "hang":
                await self._hang()
            case "metadata":
                await context.send_initial_metadata((("first", "1"), *_own(context)))
                context.set_trailing_metadata(_own(context))
            case "code":
                context.set_code(grpc.StatusCode.DATA_LOSS)
                context.set_details("lost")
            case "deadline":
                return Item(amount=-1 if (left := context.time_remaining()) is None else int(left))
            case "peer":
                return Item(name=context.peer())
        return Item(name=request.name, amount=len(request.name))

    async def List(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.seen.started += 1
        for number in range(request.amount):
            yield Item(name=request.name, amount=number)
        if request.name == "hang":
            await self._hang()
        if request.name == "abort":
            await context.abort(grpc.StatusCode.ABORTED, "enough")
        self.seen.finished += 1

    async def Total(self, requests: Any, context: Any) -> Any:
        self.seen.started += 1
        total = 0
        async for request in requests:
            if request.name == "enough":
                return Item(name="early", amount=total)
            total += request.amount
        return Item(amount=total)

    async def Haggle(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        self.seen.started += 1
        try:
            async for request in requests:
                self.seen.requests.append(request.amount)
                if request.name == "enough":
                    return
                yield Item(amount=request.amount * 2, name=request.name)
        except asyncio.CancelledError:
            self.seen.cancelled += 1
            raise

    async def _hang(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.seen.cancelled += 1
            raise


class ThreadShop(shop_pb2_grpc.ShopServicer):
    """The same as plain functions."""

    def __init__(self) -> None:
        self.seen = Seen()

    def Price(self, request: Any, context: Any) -> Any:
        self.seen.started += 1
        match request.name:
            case "abort":
                context.set_trailing_metadata((("why", "none"), ("why-bin", b"\0,\xff")))
                context.abort(grpc.StatusCode.NOT_FOUND, "nö 100%\n☃")
            case "details":
                context.abort_with_status(sold_out())
            case "fail":
                raise RuntimeError("broken")
            case "hang":
                self._hang(context)
            case "metadata":
                context.send_initial_metadata((("first", "1"), *_own(context)))
                context.set_trailing_metadata(_own(context))
            case "code":
                context.set_code(grpc.StatusCode.DATA_LOSS)
                context.set_details("lost")
            case "deadline":
                return Item(amount=-1 if (left := context.time_remaining()) is None else int(left))
            case "peer":
                return Item(name=context.peer())
        return Item(name=request.name, amount=len(request.name))

    def List(self, request: Any, context: Any) -> Any:
        self.seen.started += 1
        for number in range(request.amount):
            yield Item(name=request.name, amount=number)
        if request.name == "hang":
            self._hang(context)
        if request.name == "abort":
            context.abort(grpc.StatusCode.ABORTED, "enough")
        self.seen.finished += 1

    def Total(self, requests: Any, context: Any) -> Any:
        self.seen.started += 1
        total = 0
        for request in requests:
            if request.name == "enough":
                return Item(name="early", amount=total)
            total += request.amount
        return Item(amount=total)

    def Haggle(self, requests: Any, context: Any) -> Any:
        self.seen.started += 1
        try:
            for request in requests:
                self.seen.requests.append(request.amount)
                if request.name == "enough":
                    return
                yield Item(amount=request.amount * 2, name=request.name)
        except BaseException:
            self.seen.cancelled += 1
            raise

    def _hang(self, context: Any) -> None:
        while context.is_active():
            time.sleep(0.005)
        self.seen.cancelled += 1


def _own(context: Any) -> tuple[tuple[str, str | bytes], ...]:
    return tuple((key, value) for key, value in context.invocation_metadata() if key.startswith("x-"))


# ---- Ends ------------------------------------------------------------------------------------------------------------


class OurServer:
    """An RpcServer with the shop."""

    def __init__(self, servicer: Any, limits: Limits | None = None, policy: UpkeepPolicy | None = None) -> None:
        self.servicer = servicer
        self.pool = ThreadPoolExecutor(8)
        self.handlers = MethodHandlers(self.pool)
        self.handlers.add(shop_pb2_grpc.add_ShopServicer_to_server, servicer)
        self.server = RpcServer(read_request_head, self.handlers.accept, limits=limits, policy=policy)

    async def stop(self, grace_s: float = 1.0) -> None:
        await self.server.stop(grace_s)
        self.pool.shutdown(wait=False)


@asynccontextmanager
async def our_server(servicer: Any, carrier: str = "tcp", **options: Any) -> AsyncIterator[tuple[OurServer, str]]:
    """The server and its address."""
    ours = OurServer(servicer, **options)
    try:
        if carrier == "unix":
            with tempfile.TemporaryDirectory(dir="/tmp") as folder:
                await ours.server.listen_unix(f"{folder}/s")
                yield ours, f"unix:{folder}/s"
        else:
            tls = server_tls if carrier == "tls" else None
            yield ours, f"localhost:{await ours.server.listen('127.0.0.1', 0, tls=tls)}"
    finally:
        await ours.stop()
        assert not ours.server.connections


@asynccontextmanager
async def stock_server(servicer: Any, carrier: str = "tcp", **options: Any) -> AsyncIterator[tuple[Any, str]]:
    """A grpc.aio server and its address."""
    server = grpc.aio.server(ThreadPoolExecutor(8), options=tuple(options.items()))
    shop_pb2_grpc.add_ShopServicer_to_server(servicer, server)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        if carrier == "unix":
            address = f"unix:{folder}/s"
            server.add_insecure_port(address)
        elif carrier == "tls":
            key, certificate = (path.read_bytes() for path in certificate_files())
            credentials = grpc.ssl_server_credentials([(key, certificate)])
            address = f"localhost:{server.add_secure_port('127.0.0.1:0', credentials)}"
        else:
            address = f"localhost:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        try:
            yield server, address
        finally:
            await server.stop(0)


def open_channel(kind: str, address: str, carrier: str = "tcp", **options: Any) -> Any:
    """A channel of ours, of grpc.aio or of grpc."""
    if kind == "ours":
        return RpcChannel(address, tls=client_tls() if carrier == "tls" else None)
    module = grpc.aio if kind == "aio" else grpc
    if carrier == "tls":
        credentials = grpc.ssl_channel_credentials(certificate_files()[1].read_bytes())
        return module.secure_channel(address, credentials, **options)
    return module.insecure_channel(address, **options)


@asynccontextmanager
async def shop_of(
    kind: str, servicer: Any, carrier: str = "tcp", *, server: str = "ours", **options: Any
) -> AsyncIterator[Any]:
    """The stub of a client of one kind, connected to a server of another."""
    serve = our_server if server == "ours" else stock_server
    async with AsyncExitStack() as stack:
        _, address = await stack.enter_async_context(serve(servicer, carrier, **options))
        channel = await stack.enter_async_context(open_channel(kind, address, carrier))
        yield shop_pb2_grpc.ShopStub(channel)


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


# ---- A client whose bytes the test chooses --------------------------------------------------------------------------


class RawCall:
    """What comes back on one stream."""

    def __init__(self) -> None:
        self.heads: list[dict[bytes, bytes]] = []
        self.body = bytearray()
        self.reset_code: int | None = None
        self.has_ended = False

    def on_headers(self, stream: Stream, head: list[Field], *, ended: bool) -> None:
        self.heads.append(dict(head))

    def on_data(self, stream: Stream, data: bytes, start: int, stop: int) -> None:
        self.body += data[start:stop]
        stream.connection.give_room(stream, stop - start)

    def on_end(self, stream: Stream) -> None:
        self.has_ended = True

    def on_reset(self, stream: Stream, code: int) -> None:
        self.reset_code, self.has_ended = code, True

    def on_writable(self, stream: Stream) -> None: ...


@asynccontextmanager
async def raw_connection(address: str) -> AsyncIterator[ClientConnection[list[Field]]]:
    """To "localhost:port"."""

    def make(_: Http2Transport, on_output: Callable[[], None]) -> ClientConnection[list[Field]]:
        return ClientConnection(lambda fields: fields, Limits(), time.monotonic, on_output)

    port = int(address.rpartition(":")[2])
    loop = asyncio.get_running_loop()
    _, transport = await loop.create_connection(lambda: Http2Transport(make, lambda _: None), "127.0.0.1", port)
    try:
        yield transport.connection  # type: ignore[misc]
    finally:
        transport.abort("the test is over")


RAW_REQUEST: tuple[Field, ...] = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/mesh.tests.Shop/Price"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
)


async def raw_call(address: str, *fields: Field, body: bytes = b"", path: bytes = b"") -> RawCall:
    """One call with these fields, which replace the usual ones of their names."""
    by_name = dict(RAW_REQUEST) | dict(fields) | ({b":path": path} if path else {})
    call = RawCall()
    async with raw_connection(address) as connection:
        stream = connection.open(encode_fields(sorted(by_name.items())), call)
        connection.outbox.send_data(stream, body)
        connection.outbox.end(stream)
        await until(lambda: call.has_ended, "the call ends")
    return call


# ---- A throwaway certificate -----------------------------------------------------------------------------------------


@cache
def certificate_files() -> tuple[Path, Path]:
    """A key and its certificate for localhost."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl, which makes the test's certificate, is not installed")
    folder = Path(tempfile.mkdtemp(prefix="mesh-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    command = f"{openssl} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [*command.split(), "-addext", names, "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
        timeout=30,
    )
    return key, certificate


def server_tls() -> ssl.SSLContext:
    key, certificate = certificate_files()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    return context


def client_tls() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate_files()[1]))
