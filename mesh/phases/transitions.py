"""`next_state`: the one way to read a transition table. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

S = TypeVar("S", bound=Enum)
E = TypeVar("E", bound=Enum)


class WrongTransitionError(Exception):
    """An event in a state that does not expect it; the text says "EVENT while STATE".

    Where the event came from a peer, catch it and report the peer's fault; otherwise it is a defect.
    """


def next_state(table: Mapping[tuple[S, E], S], state: S, event: E) -> S:
    """The state after `event`. Raises WrongTransitionError for a pair that is not in the table."""
    try:
        return table[state, event]
    except KeyError:
        raise WrongTransitionError(f"{event.name} while {state.name}") from None
