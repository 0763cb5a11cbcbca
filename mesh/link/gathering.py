"""Rules for how long a link lets a batch of frames grow before it is written. Pure, chosen by measurement.

A gRPC message costs the same whatever is in it. While one is being written, what gets ready gathers by itself; that
is all the gathering there is when few calls are under way. Under load a short wait more than pays for itself, but only
where more frames are bound to come: docs/decisions.md has the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum


class Patience(Enum):
    NONE = "none"
    TURNS = "turns"
    """Some turns of the event loop: the frames of calls that wake together arrive within them."""
    HOLD = "hold"
    """Settings.link_hold_s."""


Rule = Callable[[int, int, int], Patience]
"""Takes the frames that wait, the frames of the last message, and the calls under way on the link."""

_MANY_CALLS = 32
_SOME_CALLS = 8
_SPARSE_SHARE = 8
_LOADED_BATCH = 3


def for_handle_calls(waiting: int, last_batch: int, under_way: int) -> Patience:
    """Calls of one process arrive in bursts: only what is sparse for the number of calls under way is held back."""
    del last_batch
    if under_way < _SOME_CALLS or waiting * _SPARSE_SHARE >= under_way:
        return Patience.NONE
    return Patience.HOLD if under_way >= _MANY_CALLS else Patience.TURNS


def for_gateway_calls(waiting: int, last_batch: int, under_way: int) -> Patience:
    """Calls of independent clients trickle in one by one: that the last message carried several is the sign of load.

    As many as it carried never wait: so streams, whose items come in bursts, pass unhindered.
    """
    del under_way
    if waiting >= last_batch:
        return Patience.NONE
    return Patience.HOLD if last_batch >= _LOADED_BATCH else Patience.TURNS


def rule_for(*, gathers: bool) -> Rule:
    """The rule of a link, see Hello.gathers in replica.proto."""
    return for_gateway_calls if gathers else for_handle_calls
