"""`Http1Service`: what all HTTP/1.1 connections of a server share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.http1.http1_limits import Http1Limits
from gateway.requests.dialect_list import AnswerFault
from gateway.requests.exchange import Exchange, ExchangeReceiver
from gateway.requests.in_flight import InFlight
from mesh.http2.limits import BufferBudget


@dataclass(frozen=True, slots=True, kw_only=True)
class Http1Service:
    """On one event loop."""

    open: Callable[[Exchange], ExchangeReceiver | None]
    """Gives an exchange its receiver; None if it has been answered."""
    answer_fault: AnswerFault
    """Answers an exchange that ends by its client's fault in the form of its dialect; False if that has none."""
    on_lost: Callable[[Any], None]
    """Called with an `Http1Connection` once its socket is closed."""
    in_flight: InFlight
    """Counts exchanges in progress."""
    limits: Http1Limits
    budget: BufferBudget
    root_path: str = ""
    """Where a proxy in front has mounted the server."""
