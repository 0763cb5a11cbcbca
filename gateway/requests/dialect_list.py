"""`Dialect`: what serves exchanges of one kind; `DialectList`: which one gets an exchange."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import ceil
from typing import Protocol, runtime_checkable

from gateway.requests.exchange import TEXT, Exchange, ExchangeReceiver, Fields, HttpHead, answer
from gateway.requests.routes import Refusal

CHALLENGE = (b"www-authenticate", b"Bearer")
"""Of answers with status 401."""


def retry_after_field(seconds: float) -> tuple[bytes, bytes]:
    """In whole seconds, as HTTP has it."""
    return b"retry-after", b"%d" % max(1, ceil(seconds))


class Dialect(Protocol):
    """A protocol on top of HTTP, or a kind of request. It knows no other one."""

    def claims(self, head: HttpHead) -> bool:
        """Whether it serves such requests. The answer changes with the routes only."""

    def open(self, exchange: Exchange) -> ExchangeReceiver | None:
        """The receiver of the exchange; None if it has been answered."""


@runtime_checkable
class RefusingDialect(Dialect, Protocol):
    """A dialect whose clients do not read the gateway's answer to those that may not call."""

    def refuse(self, exchange: Exchange, refusal: Refusal) -> bool:
        """Answer in the form of the dialect that its client may not send the exchange. False: not answered."""


AnswerFault = Callable[[Exchange, int, str], bool]
"""Answers a request that ends early by its client's fault, with this status and text; False: not answered."""


@runtime_checkable
class FaultDialect(Dialect, Protocol):
    """A dialect whose clients do not read plain text behind a status of HTTP."""

    def answer_fault(self, exchange: Exchange, status: int, text: str) -> bool:
        """See `AnswerFault`; in the form of the dialect. What was opened for the request has ended already."""


class DialectList:
    """Dialects in the order in which they are asked. The first that claims an exchange gets it."""

    def __init__(self, *dialects: Dialect) -> None:
        self._dialects = dialects
        self._version = object()

    def add(self, *dialects: Dialect) -> None:
        """They are asked behind those that are there."""
        self._dialects += dialects
        self.forget()

    def forget(self) -> None:
        """The routes change: ask all dialects again, also about heads that are known."""
        self._version = object()

    def open(self, exchange: Exchange) -> ExchangeReceiver | None:
        """The receiver of the exchange; None if it has been answered."""
        head = exchange.head
        dialect = self._dialect_of(head)
        if dialect is not None:
            return dialect.open(exchange)
        answer_json(exchange, 404, {"error": f"Path '{head.path}' not found."})
        return None

    def accept(self, exchange: Exchange) -> ExchangeReceiver | None:
        """Open an exchange whose client may call, and ask for its body."""
        receiver = self.open(exchange)
        if receiver is not None:
            exchange.ask_for_body()
        return receiver

    def refuse(self, exchange: Exchange, refusal: Refusal) -> bool:
        """See `RefusingDialect`; False too where the dialect that claims the exchange is none."""
        dialect = self._dialect_of(exchange.head)
        return isinstance(dialect, RefusingDialect) and dialect.refuse(exchange, refusal)

    def answer_fault(self, exchange: Exchange, status: int, text: str) -> bool:
        """See `FaultDialect`; False too where the dialect that claims the exchange is none."""
        dialect = self._dialect_of(exchange.head)
        return isinstance(dialect, FaultDialect) and dialect.answer_fault(exchange, status, text)

    def _dialect_of(self, head: HttpHead) -> Dialect | None:
        known = head.readings.get(self)
        if known is None or known[0] is not self._version:
            known = head.readings[self] = self._version, self._find(head)
        dialect: Dialect | None = known[1]
        return dialect

    def _find(self, head: HttpHead) -> Dialect | None:
        return next((each for each in self._dialects if each.claims(head)), None)


def answer_text(exchange: Exchange, status: int, text: str) -> None:
    """Answer with plain text. If there is no room for it, the exchange is aborted."""
    answer(exchange, status, [TEXT], text.encode())


def answer_json(exchange: Exchange, status: int, value: object, more: Fields | None = None) -> None:
    """Answer with what `json` can write, and `more` header fields. If there is no room, the exchange is aborted."""
    answer(exchange, status, [(b"content-type", b"application/json"), *(more or [])], json.dumps(value).encode())
