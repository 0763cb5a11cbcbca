"""The phases of a gateway's listener, as a transition table. Pure."""

from __future__ import annotations

from enum import Enum, auto


class ListenerPhase(Enum):
    """What the listener does with calls."""

    WAITING = auto()
    """No route table has arrived yet: every call is refused."""
    SERVING = auto()
    """Calls go to the deployments that the routes name."""
    DRAINING = auto()
    """Calls are served while clients learn that they have to go elsewhere. Final."""


class ListenerEvent(Enum):
    """What can change the phase."""

    ROUTES = auto()
    """A route table has arrived."""
    DRAIN = auto()
    """The gateway is to end."""


LISTENER_TRANSITIONS = {
    (ListenerPhase.WAITING, ListenerEvent.ROUTES): ListenerPhase.SERVING,
    (ListenerPhase.SERVING, ListenerEvent.ROUTES): ListenerPhase.SERVING,
    (ListenerPhase.DRAINING, ListenerEvent.ROUTES): ListenerPhase.DRAINING,
    (ListenerPhase.WAITING, ListenerEvent.DRAIN): ListenerPhase.DRAINING,
    (ListenerPhase.SERVING, ListenerEvent.DRAIN): ListenerPhase.DRAINING,
    (ListenerPhase.DRAINING, ListenerEvent.DRAIN): ListenerPhase.DRAINING,
}
