"""The division of an application's requests between its version and a canary of it: decided once for each. Pure.

Theory of operation. The first router of the application that a request meets decides which version serves it, and
writes that into the context of the request, and into the one that it was copied from. All calls made for the request
carry it along, so they stay with that version, whatever deployments they pass.

Calls that a replica of one of the two versions makes stay with its own version, whatever their request says. A request
may have come without a decision, because its caller has not heard of the canary yet, and the canary may have had no
replica or no place for one that was its own.

A session is decided by its name alone: all callers agree, and it stays. Other requests are counted out, not drawn:
after any number of them the canary has got its share to within one request. Each caller begins its count somewhere
else, so that many callers with few requests each keep the share too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from mesh.link.outgoing_call import CallRequest

_SESSION_BITS = 64


class CallingReplica(NamedTuple):
    """The replica whose calls a router sends."""

    app: str
    deployment: str
    version: str
    """Version of the replica's code and options."""


@dataclass(frozen=True, slots=True)
class TrafficRule:
    """Which requests of an application its canary serves."""

    app: str
    version: str = ""
    """Version of the canary's replicas of one deployment; empty: the canary has none of its own there."""
    share: float = 0.0
    """From 0 to 1: of the requests that no match decides."""
    header: str = ""
    """Name of a metadata entry or header field, in lower case; requests with it go to the canary. Empty: none."""
    value: str = ""
    """That it has to have; empty: any."""
    canary_versions: frozenset[tuple[str, str]] = frozenset()
    """Each deployment that the canary has replicas of, and their version."""

    @property
    def canary_track(self) -> str:
        """In the context of requests that the canary serves."""
        return f"|+{self.app}|"

    @property
    def stable_track(self) -> str:
        """In the context of the others."""
        return f"|-{self.app}|"

    def track_of(self, caller: CallingReplica | None) -> str:
        """What the calls of that replica have in their contexts; empty: what their requests have.

        It serves requests of both versions where the canary has no replicas of its deployment, and of others than
        this application.
        """
        if caller is None or caller.app != self.app:
            return ""
        version = dict(self.canary_versions).get(caller.deployment)
        if version is None:
            return ""
        return self.canary_track if caller.version == version else self.stable_track

    def matches(self, name: str, value: str | bytes) -> bool:
        """Whether a metadata entry or header field sends its request to the canary."""
        return bool(self.header) and name == self.header and (not self.value or value == self.value)


class TrafficSplit:
    """Decides by one rule, in one router."""

    __slots__ = ("_canary", "_due", "_own", "_stable", "rule")

    def __init__(self, rule: TrafficRule, start: float, caller: CallingReplica | None = None) -> None:
        """`start`: where the count begins, from 0 to 1, another one in each process. `caller`: where the router is."""
        self.rule = rule
        self._canary = rule.canary_track
        self._stable = rule.stable_track
        self._own = rule.track_of(caller)
        self._due = start

    def decide(self, request: CallRequest) -> None:
        """Write into the context which version serves the request, unless that is decided."""
        context = request.context
        origin = context.origin or context
        track = origin.track
        if self._own:
            if self._own not in track:
                others = track.replace(self._canary, "").replace(self._stable, "")
                track = origin.track = others + self._own
        elif self._canary not in track and self._stable not in track:
            track = origin.track = track + (self._canary if self._takes(request) else self._stable)
        context.track = track

    def _takes(self, request: CallRequest) -> bool:
        rule = self.rule
        if rule.header and any(rule.matches(*entry) for entry in request.metadata):
            return True
        if request.session_id:
            return _fraction(f"{rule.app}\0{request.session_id}") < rule.share
        self._due += rule.share
        if self._due < 1:
            return False
        self._due -= 1
        return True


def renewed(
    before: TrafficSplit | None,
    rule: TrafficRule | None,
    random: Callable[[], float],
    caller: CallingReplica | None = None,
) -> TrafficSplit | None:
    """What decides by that rule from now on; the one before if the rule is the same. None: there is no canary."""
    if rule is None:
        return None
    return before if before is not None and before.rule == rule else TrafficSplit(rule, random(), caller)


def _fraction(name: str) -> float:
    """A number from 0 to 1 that only the name decides."""
    digest = blake2b(name.encode(), digest_size=_SESSION_BITS // 8).digest()
    return float(int.from_bytes(digest) / 2**_SESSION_BITS)
