"""The calls that a deployment's own request router ranks. I/O loop only.

Theory of operation. A call is held in the queue of targeted calls, at first without targets, while the user's code
ranks the candidates in its thread. The ranking becomes the targets of the call, and from there on it is sent like any
call with targets. A call that still waits is ranked again after a while, as replicas come and loads change. A router
that fails, does not answer in time or has too many questions open has no say: all candidates are targets then.

For a call that a canary of the application serves the candidates are the canary's replicas. Those of the version beside
it are added as the last group, so that a canary which is full delays no call.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from mesh.cluster.keys import DeploymentKey
from mesh.context import ReplicaId
from mesh.link.outgoing_call import CallState, OutgoingCall
from mesh.link.replica_facts import ReplicaFacts
from mesh.routing.custom.router_contract import PendingRequest, RequestMetadata, RunningReplica
from mesh.routing.custom.router_thread import HostedRouter, Ranking
from mesh.routing.endpoint import Endpoint
from mesh.routing.link_pool import LinkPool
from mesh.settings import settings
from mesh.wire.io_thread import io_thread

_NO_FACTS = ReplicaFacts()
_RETRY_MIN_S = 0.025
"""First pause before a router that chose nothing is asked again; it doubles each time."""
_RETRY_MAX_S = 0.5
"""Pauses before a waiting call is ranked again: the first, doubled each time, up to the second."""


@dataclass(slots=True, eq=False)
class _Ranked:
    """A call that waits."""

    call: OutgoingCall
    pending: PendingRequest
    question: int = 0
    """Counts the questions asked for it, so that a late answer to an earlier one is recognised."""
    is_asked: bool = False
    is_ranked: bool = False


class CustomChoice:
    """The router of one deployment, as WaitingCalls uses it."""

    def __init__(self, hosted: HostedRouter, pool: LinkPool, dispatch: Callable[[OutgoingCall], None]) -> None:
        """`dispatch` sends a call that has targets, if one of them has a free place."""
        self.hosted = hosted
        self._pool = pool
        self._dispatch = dispatch
        self._waiting: dict[int, _Ranked] = {}
        """By sequence number."""
        self._unranked: set[int] = set()
        """Those of them that are being ranked for the first time."""

    @property
    def unranked(self) -> int:
        """Calls that wait for a ranking, not for a place or a replica."""
        return len(self._unranked)

    def hold(self, call: OutgoingCall) -> None:
        """A new call, without targets: have it ranked."""
        ranked = self._waiting[call.sequence] = _Ranked(call, _pending(call))
        self._ask(ranked)

    def resume(self, call: OutgoingCall) -> None:
        """A call that was sent has come back, with its targets."""
        ranked = self._waiting[call.sequence] = _Ranked(call, _pending(call), is_ranked=True)
        io_thread().loop.call_later(_RETRY_MAX_S, self._again, ranked)

    def release_all(self) -> list[OutgoingCall]:
        """Give back all calls, without targets."""
        waiting, self._waiting = self._waiting, {}
        self._unranked.clear()
        for ranked in waiting.values():
            ranked.call.request.targets = None
        return [ranked.call for ranked in waiting.values()]

    def forget(self, call: OutgoingCall) -> None:
        """The call has ended, or is being sent."""
        self._waiting.pop(call.sequence, None)
        self._unranked.discard(call.sequence)

    def on_sent(self, call: OutgoingCall, endpoint: Endpoint) -> None:
        """A call is being sent there."""
        ranked = self._waiting.get(call.sequence)
        if ranked is not None:
            self.forget(call)
            self.hosted.tell_routed(ranked.pending, endpoint.name)

    def ask_again(self) -> None:
        """Replicas came or went: rank the calls that have no target among those that are here."""
        for ranked in list(self._waiting.values()):
            targets = ranked.call.request.targets or ()
            if not any(self._pool.find(name) for group in targets for name in group):
                self._ask(ranked)

    def _ask(self, ranked: _Ranked) -> None:
        others, canary = self._pool.all, self._pool.canary
        chosen_from = canary.all if canary is not None and canary.serves(ranked.call) else others
        candidates = [_described(endpoint, self.hosted.key) for endpoint in chosen_from.candidates]
        if ranked.is_asked or not candidates:
            return
        ranked.is_asked = True
        if not ranked.is_ranked:
            self._unranked.add(ranked.call.sequence)
        ranked.question += 1
        question = ranked.question
        everyone = (frozenset(each.replica_id for each in candidates),)
        last = () if chosen_from is others else (frozenset(each.name for each in others.candidates),)

        def on_ranked(ranking: Ranking) -> None:
            targets = everyone if ranking is None else ranking
            self._on_ranked(ranked, question, targets and targets + last)

        def on_late() -> None:
            withdraw()
            if ranked.is_asked and ranked.question == question:
                self.hosted.report("did not answer in time", None)
                on_ranked(None)

        timer = io_thread().loop.call_later(settings().routing.request_router_timeout_s, on_late)

        def on_answer(ranking: Ranking) -> None:
            timer.cancel()
            on_ranked(ranking)

        withdraw = self.hosted.rank(candidates, ranked.pending, on_answer)

    def _on_ranked(self, ranked: _Ranked, question: int, targets: tuple[frozenset[str], ...]) -> None:
        call = ranked.call
        if not ranked.is_asked or ranked.question != question:
            return
        ranked.is_asked = False
        if call.state is not CallState.QUEUED or self._waiting.get(call.sequence) is not ranked:
            return
        self._unranked.discard(call.sequence)
        if targets:
            call.request.targets = targets
            ranked.is_ranked = True
            self._dispatch(call)
        if self._waiting.get(call.sequence) is ranked:
            pause_s = min(_RETRY_MAX_S, _RETRY_MIN_S * 2 ** min(question, 10))
            io_thread().loop.call_later(pause_s, self._again, ranked)

    def _again(self, ranked: _Ranked) -> None:
        if self._waiting.get(ranked.call.sequence) is ranked and ranked.call.state is CallState.QUEUED:
            self._ask(ranked)


def _pending(call: OutgoingCall) -> PendingRequest:
    request, context = call.request, call.request.context
    metadata = RequestMetadata(
        request_id=context.request_id,
        app_name=context.app,
        method_name=request.method,
        is_streaming=request.streams_response,
        multiplexed_model_id=context.multiplexed_model_id,
        session_id=request.session_id,
        tenant=context.tenant,
        route=context.route,
        invocation_metadata=request.metadata,
    )
    created_at = time.time() - (time.monotonic() - call.started_at_s)
    return PendingRequest(metadata, created_at, request.payload)


def _described(endpoint: Endpoint, key: DeploymentKey) -> RunningReplica:
    facts = endpoint.link.facts if endpoint.link is not None else _NO_FACTS
    return RunningReplica(
        replica_id=ReplicaId(endpoint.name, key),
        node_id=endpoint.info.node_id,
        availability_zone=endpoint.info.zone,
        queue_len=endpoint.load,
        max_ongoing_requests=endpoint.limit,
        multiplexed_model_ids=frozenset(endpoint.models()),
        routing_stats=facts.routing_stats,
        replica_metadata=facts.metadata,
    )
