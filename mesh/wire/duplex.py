"""Both directions of a stream, run together: when one ends, the other is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import grpc
import grpc.aio

T = TypeVar("T")

_BREAKS = (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError)
"""What grpc.aio raises where a stream has ended."""


async def converse(reading: Coroutine[Any, Any, T], writing: Coroutine[Any, Any, None]) -> T:
    """Run both directions until the reading one ends; returns what that returns, or raises what it raises.

    Where the stream breaks both meet it, and the reading one knows why. Anything else that the writing one raises is a
    defect and is raised here: the stream would look alive, and nothing would ever be said on it again.
    """
    reader, writer = asyncio.create_task(reading), asyncio.create_task(writing)
    try:
        await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
        raise_defect(writer)
        return await reader
    finally:
        for task in (reader, writer):
            task.cancel()
        await asyncio.gather(reader, writer, return_exceptions=True)


def raise_defect(writer: asyncio.Task[None]) -> None:
    """Raises what has ended the writing of a stream, unless that is its own break or a cancellation."""
    if writer.done() and not writer.cancelled():
        error = writer.exception()
        if error is not None and not isinstance(error, _BREAKS):
            raise error
