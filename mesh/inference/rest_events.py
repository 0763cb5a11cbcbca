"""The responses of a model as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from mesh.inference.inference_failures import failure_text, record_failure
from mesh.web.asgi_types import ClientGoneError, Send

_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


async def send_events(responses: AsyncGenerator[bytes, None], model: str, send: Send) -> None:
    """Send each as one event. Raises what the first raises; a later failure is an event, and the last one."""
    async with aclosing(responses):
        first = await anext(responses, None)
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        try:
            if first is not None:
                await _send_event(first, send)
            async for each in responses:
                await _send_event(each, send)
        except ClientGoneError:
            return
        except Exception as error:  # user code's: the head has left, so no status can say it
            record_failure(f"generate_stream of {model}", error)
            await _send_event(msgspec.json.encode({"error": failure_text(error)}), send)
        await send({"type": "http.response.body", "body": b""})


async def _send_event(data: bytes, send: Send) -> None:
    await send({"type": "http.response.body", "body": b"data: %b\n\n" % data, "more_body": True})
