"""The phases of a link at both of its ends, as transition tables.

Each end has its own table: an end hears of the other's events only when their frames arrive. An event that a frame
causes and that the table does not list is the peer's fault and ends the link; any other one is a defect of ours.

    caller:  CONNECTING --WELCOME--> READY --DRAIN--> DRAINING --BREAK--> CLOSED
    callee:  OPEN --DRAIN--> DRAINING --ACKNOWLEDGE--> LEFT --CLOSE--> CLOSED

The caller answers each Drain behind its last Open. So a callee in LEFT has read all calls that the caller sent before
it stopped, and its replica may end without losing one.
"""

from __future__ import annotations

from enum import Enum


class CallerPhase(Enum):
    CONNECTING = "connecting"
    READY = "ready"
    DRAINING = "draining"
    """Takes no new calls."""
    CLOSED = "closed"


class CallerEvent(Enum):
    WELCOME = "welcome"
    DRAIN = "drain"
    """The replica drains, or is no longer listed."""
    BREAK = "break"


CALLER_TRANSITIONS = {
    (CallerPhase.CONNECTING, CallerEvent.WELCOME): CallerPhase.READY,
    # No longer listed before it was ready, or the replica sends Drain before Welcome. That Welcome changes nothing.
    (CallerPhase.CONNECTING, CallerEvent.DRAIN): CallerPhase.DRAINING,
    (CallerPhase.CONNECTING, CallerEvent.BREAK): CallerPhase.CLOSED,
    (CallerPhase.READY, CallerEvent.DRAIN): CallerPhase.DRAINING,
    (CallerPhase.READY, CallerEvent.BREAK): CallerPhase.CLOSED,
    (CallerPhase.DRAINING, CallerEvent.WELCOME): CallerPhase.DRAINING,
    (CallerPhase.DRAINING, CallerEvent.DRAIN): CallerPhase.DRAINING,
    (CallerPhase.DRAINING, CallerEvent.BREAK): CallerPhase.CLOSED,
}


class CalleePhase(Enum):
    OPEN = "open"
    DRAINING = "draining"
    """The caller has been sent a Drain."""
    LEFT = "left"
    """The caller has acknowledged the Drain: it sends no more calls."""
    CLOSED = "closed"


class CalleeEvent(Enum):
    DRAIN = "drain"
    """The replica drains."""
    ACKNOWLEDGE = "acknowledge"
    """The caller's Drain."""
    CLOSE = "close"
    """The stream has ended."""


CALLEE_TRANSITIONS = {
    (CalleePhase.OPEN, CalleeEvent.DRAIN): CalleePhase.DRAINING,
    (CalleePhase.OPEN, CalleeEvent.CLOSE): CalleePhase.CLOSED,
    # A restarted controller asks the replica to drain once more.
    (CalleePhase.DRAINING, CalleeEvent.DRAIN): CalleePhase.DRAINING,
    (CalleePhase.DRAINING, CalleeEvent.ACKNOWLEDGE): CalleePhase.LEFT,
    (CalleePhase.DRAINING, CalleeEvent.CLOSE): CalleePhase.CLOSED,
    (CalleePhase.LEFT, CalleeEvent.DRAIN): CalleePhase.LEFT,
    (CalleePhase.LEFT, CalleeEvent.ACKNOWLEDGE): CalleePhase.LEFT,
    (CalleePhase.LEFT, CalleeEvent.CLOSE): CalleePhase.CLOSED,
}
