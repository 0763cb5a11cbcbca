"""Calls of a router over real links: replicas that hold models, and sinks that keep what comes back."""

from __future__ import annotations

import asyncio
from typing import Any

from mesh.context import REQUEST
from mesh.link.outgoing_call import CallRequest, OutgoingCall
from mesh.wire.outcome import Outcome, Trailers
from mesh.wire.payload import Payload, encode
from mesh.wire.request_context import RequestContext


class Models:
    """Knows its models by itself; remembers who asked for which."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gate = asyncio.Event()

    async def __call__(self, value: Any = None) -> str:
        request = REQUEST.get()
        assert request is not None
        self.asked.append(request.multiplexed_model_id)
        return request.multiplexed_model_id

    async def wait(self) -> None:
        await self()
        await self.gate.wait()


class Sink:
    """Counts how often a call ends."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def on_item(self, payload: Payload) -> None: ...

    def on_credit(self) -> None: ...

    def on_initial_metadata(self, entries: Trailers) -> None: ...

    def on_compression(self, encoding: str, *, skips_next: bool) -> None: ...

    def on_done(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


def call_of(sink: Sink, **options: Any) -> OutgoingCall:
    return OutgoingCall(CallRequest("__call__", encode(((), {})), RequestContext("id"), **options), sink)
