"""`PacedCall`: a call whose streamed response waits, message by message, until it may be translated.

Small messages pass. The loop translates a limited number of larger ones in a turn (`TurnBudget`), and a thread those
that are too large for the loop. What comes behind a message that waits, waits too. Credit for a message is granted when
it was translated, so a replica cannot make many of them wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from gateway.dialects.grpc_metadata import Invocation
from gateway.dialects.method_call import GATEWAY_FAILED, CallOwner, MethodCall
from gateway.dialects.served_method import NO_ROOM, ServedMethod
from gateway.dialects.translation.translation_thread import translate_in_thread
from gateway.dialects.translation.turn_budget import ON_LOOP_MAX_BYTES, fits_turn, turn_budget
from gateway.requests.exchange import Exchange
from mesh.rpc.status_codes import INTERNAL, RESOURCE_EXHAUSTED
from mesh.wire.outcome import Outcome
from mesh.wire.payload import Payload

logger = logging.getLogger("mesh.gateway")


class TranslatingOwner(CallOwner, Protocol):
    """The dialect's side. `on_message` translates a message and sends it at once."""

    def translate(self, message: bytes | memoryview) -> Any:
        """What is sent for a message; in any thread. Raises ValueError for one that cannot be JSON."""

    def send_translated(self, translated: Any) -> bool:
        """Send a result of `translate`, or what it has raised. False if the exchange has no room for it."""


class PacedCall(MethodCall):
    """On the I/O loop only."""

    __slots__ = ("_outcome", "_share", "_skips_next", "_task", "_waiting")

    _owner: TranslatingOwner

    def __init__(
        self,
        exchange: Exchange,
        method: ServedMethod,
        owner: TranslatingOwner,
        invocation: Invocation,
        *,
        timeout_s: float | None = None,
        accepts: Callable[[str], bool] | None = None,
    ) -> None:
        """See MethodCall."""
        super().__init__(exchange, method, owner, invocation, timeout_s=timeout_s, accepts=accepts)
        self._share = exchange.share
        """Counts what waits."""
        self._waiting: deque[tuple[Payload, bool]] = deque()
        """Messages, and whether each is to be sent without compression."""
        self._skips_next = False
        """The next message is, which comes behind others that wait."""
        self._outcome: Outcome | None = None
        """How the call has ended, once all messages are sent."""
        self._task: asyncio.Task[None] | None = None
        """Translates a large message. It ends by itself."""

    def on_compression(self, encoding: str, *, skips_next: bool) -> None:
        if skips_next and self._waiting:
            self._skips_next = True
        else:
            super().on_compression(encoding, skips_next=skips_next)

    def on_item(self, payload: Payload) -> None:
        size = len(payload.data)
        skips, self._skips_next = self._skips_next, False
        if skips and not self._waiting:
            self._skip()
            skips = False
        if not self._waiting and fits_turn(size):
            super().on_item(payload)
        elif not self.takes_messages:
            pass
        elif not self._share.has_room(size):
            self.refuse(RESOURCE_EXHAUSTED, NO_ROOM)
        else:
            self._share.add(size)
            self._waiting.append((payload, skips))
            if len(self._waiting) == 1:
                self._await_turn()

    def on_done(self, outcome: Outcome) -> None:
        if self._waiting and self.takes_messages:
            self._outcome = outcome
        else:
            self._drop()
            super().on_done(outcome)

    # ---- Messages that wait ------------------------------------------------------------------------------------------

    def _await_turn(self) -> None:
        first, _ = self._waiting[0]
        if len(first.data) > ON_LOOP_MAX_BYTES:
            self._task = asyncio.get_running_loop().create_task(self._translate_in_thread(first))
        else:
            turn_budget().wait(self._take_turn)

    def _take_turn(self) -> None:
        if self._waiting and self.takes_messages:
            payload = self._next()
            turn_budget().spend(len(payload.data))
            super().on_item(payload)
        self._go_on()

    async def _translate_in_thread(self, payload: Payload) -> None:
        owner = self._owner
        try:
            translated = await translate_in_thread(len(payload.data), owner.translate, payload.data)
        except ValueError as error:
            translated = error
        except Exception:
            logger.exception("a response of %s was not translated", self.method.full_name)
            self.refuse(INTERNAL, GATEWAY_FAILED)
            translated = None
        if self._waiting and self.takes_messages:
            self.pass_on(self._next(), partial(owner.send_translated, translated))
        self._go_on()

    def _go_on(self) -> None:
        if not self.takes_messages:
            self._drop()
        outcome = self._outcome
        if self._waiting:
            self._await_turn()
        elif outcome is not None:
            self._outcome = None
            super().on_done(outcome)

    def _next(self) -> Payload:
        payload, skips = self._waiting.popleft()
        if skips:
            self._skip()
        self._share.add(-len(payload.data))
        return payload

    def _skip(self) -> None:
        super().on_compression("", skips_next=True)

    def _drop(self) -> None:
        while self._waiting:
            self._next()
