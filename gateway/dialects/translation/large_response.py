"""A response that is translated in a thread, once its call has ended on the mesh."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gateway.dialects.translation.translation_thread import translate_in_thread
from mesh.http2.limits import BufferShare
from mesh.rpc.message_reader import MessageError
from mesh.rpc.status_codes import RESOURCE_EXHAUSTED

T = TypeVar("T")

NO_ROOM_FOR_RESPONSE = "This gateway has no room for the response. The call was executed; its response is lost."


async def translate_response(
    share: BufferShare, translate: Callable[[bytes | memoryview], T], message: bytes | memoryview
) -> T:
    """What `translate` makes of the message, or raises; the message counts as buffered until then.

    Raises MessageError if there is no room for it.
    """
    if not share.has_room(len(message)):
        raise MessageError(RESOURCE_EXHAUSTED, NO_ROOM_FOR_RESPONSE)
    share.add(len(message))
    try:
        return await translate_in_thread(len(message), translate, message)
    finally:
        share.add(-len(message))
