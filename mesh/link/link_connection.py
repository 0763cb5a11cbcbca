"""A caller's link on its connection: connect, say Hello, carry the messages both ways, and see the end.

The break of the stream is the failure detector: a process that dies breaks it within milliseconds.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

from mesh.http2.client_connection import ClientConnection
from mesh.http2.frame_format import ErrorCode
from mesh.http2.transport import Http2Transport
from mesh.link.caller_link import CallerLink
from mesh.link.link_phases import CallerPhase
from mesh.link.link_stream import LINK_METHOD, LinkStream, caller_transports
from mesh.link.link_target import LinkTarget
from mesh.link.writer import LinkWriter
from mesh.rpc.grpc_fields import request_block
from mesh.settings import settings
from mesh.wire.outcome import describe

T = TypeVar("T")


async def run_link(link: CallerLink, target: LinkTarget) -> bool:
    """Connect, carry calls until the link breaks, and report that. Cancel it to close the link, with the reason.

    Returns whether the replica had ever accepted the link.
    """
    reason = "the link was closed"
    transport: Http2Transport | None = None
    try:
        async with asyncio.timeout(settings().link.connect_timeout_s):
            transport = await target.connect()
            caller_transports().add(transport)
            answered, ended = _say_hello(link, target, transport)
            await answered
        reason = await ended
        return link.phase is not CallerPhase.CONNECTING
    except asyncio.CancelledError as cancelled:
        reason = str(cancelled) or reason
        raise
    except TimeoutError:
        missing = "no connection" if transport is None else "no answer to Hello"
        reason = f"{missing} within {settings().link.connect_timeout_s} s"
        return False
    except OSError as error:
        reason = describe(error)
        return False
    except Exception as error:
        reason = describe(error)
        raise
    finally:
        if transport is not None:
            transport.close(reason)
        link.end(reason)


def _say_hello(
    link: CallerLink, target: LinkTarget, transport: Http2Transport
) -> tuple[asyncio.Future[None], asyncio.Future[str]]:
    """Open the stream. Returns futures: of the first message or the end, and of the reason why the stream ended."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[None] = loop.create_future()
    ended: asyncio.Future[str] = loop.create_future()
    connection = transport.connection
    assert isinstance(connection, ClientConnection)

    def on_first(data: bytes) -> None:
        receiver.writer = LinkWriter(stream)
        link.open(receiver.writer)
        receiver.become(link.receive, link.receive_part, on_end)
        link.receive(data)
        _resolve(answered, None)

    def on_end(reason: str, code: ErrorCode | int) -> None:
        if code == ErrorCode.PROTOCOL_ERROR:
            reason = f"the replica sent {reason}"
        elif transport.is_lost:
            reason = f"its connection broke ({transport.lost_reason})"
        _resolve(ended, reason)
        _resolve(answered, None)

    receiver = LinkStream(on_first, on_end)
    stream = connection.open(request_block(LINK_METHOD, target.address), receiver)
    connection.outbox.send_message(stream, target.hello)
    return answered, ended


def _resolve(future: asyncio.Future[T], value: T) -> None:
    """A cancelled one stays so: its link is being closed."""
    if not future.done():
        future.set_result(value)
