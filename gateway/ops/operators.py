"""`OperatorsDialect`: health, routes, metrics and connections over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from gateway.ops.connections_page import may_ask
from gateway.ops.exposition import TextForm, accepted_form
from gateway.ops.metric_sums import Families
from gateway.ops.metrics_page import MetricsPage
from gateway.requests.dialect_list import answer_json, answer_text
from gateway.requests.exchange import BrokenBy, Exchange, ExchangeReceiver, HttpHead, answer
from mesh.wire.io_thread import io_thread

OPERATORS_PREFIX = "/-/"
"""The beginning of all paths for operators."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """What operators read."""

    why_unhealthy: Callable[[], str]
    """Empty when the gateway serves."""
    routes: Callable[[], Mapping[str, str]]
    """Application names by route prefix."""
    scrape: Callable[[], Awaitable[Families]]
    connections: Callable[[], Awaitable[Mapping[str, object]]]
    """What `/-/connections` shows."""


class OperatorsDialect:
    """Paths that begin with `/-/`. I/O loop only."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._metric_pages = {form: MetricsPage(form, operations.scrape) for form in TextForm}
        self._pages: dict[str, Callable[[Exchange], ExchangeReceiver | None]] = {
            "/-/healthz": self._healthz,
            "/-/routes": self._routes,
            "/-/metrics": self._metrics,
            "/-/connections": self._connections,
        }

    def claims(self, head: HttpHead) -> bool:
        return head.path.startswith(OPERATORS_PREFIX)

    def open(self, exchange: Exchange) -> ExchangeReceiver | None:
        head = exchange.head
        page = self._pages.get(head.path)
        if page is None:
            error = f"Path '{head.path}' not found. There are {', '.join(self._pages)}."
            answer_json(exchange, 404, {"error": error})
        elif head.method not in ("GET", "HEAD"):
            answer(exchange, 405, [(b"allow", b"GET, HEAD")])
        else:
            return page(exchange)
        return None

    def _healthz(self, exchange: Exchange) -> None:
        why = self._operations.why_unhealthy()
        answer_text(exchange, 503 if why else 200, why or "success")

    def _routes(self, exchange: Exchange) -> None:
        answer_json(exchange, 200, dict(self._operations.routes()))

    def _metrics(self, exchange: Exchange) -> ExchangeReceiver:
        form = accepted_form(exchange.head.all_of(b"accept").decode("latin-1"))

        async def read() -> tuple[bytes, str]:
            return await self._metric_pages[form].read(), form.value

        return _PageRequest(exchange, read)

    def _connections(self, exchange: Exchange) -> ExchangeReceiver | None:
        if not may_ask(exchange.head.peer, exchange.head.fields):
            answer_text(exchange, 403, "It names clients: ask on the node of the gateway itself, by 127.0.0.1.\n")
            return None

        async def gather() -> tuple[bytes, str]:
            page = await self._operations.connections()
            return await asyncio.to_thread(_json, page), "application/json"

        return _PageRequest(exchange, gather)


def _json(page: Mapping[str, object]) -> bytes:
    return json.dumps(page, indent=1).encode()


class _PageRequest:
    """One request for a page that takes time. A client that leaves ends it."""

    def __init__(self, exchange: Exchange, make: Callable[[], Awaitable[tuple[bytes, str]]]) -> None:
        """`make` returns the body and its content type."""
        self._exchange = exchange
        self._task = io_thread().spawn(self._run(make), exchange.head.path)

    def on_body(self, data: bytes) -> None:
        self._exchange.give_room(len(data))

    def on_end(self) -> None: ...

    def on_broken(self, by: BrokenBy) -> None:
        self._task.cancel()

    def on_writable(self) -> None: ...

    async def _run(self, make: Callable[[], Awaitable[tuple[bytes, str]]]) -> None:
        try:
            body, content_type = await make()
        except Exception:
            answer_text(self._exchange, 500, "The page could not be made; the log of the gateway has the reason.\n")
            raise
        answer(self._exchange, 200, [(b"content-type", content_type.encode())], body)
