"""Owns routing: every call of this process to one deployment passes through its router. I/O loop only.

Theory of operation. A call is sent at once when a replica has a free place, else it waits in one queue. Nothing polls:
the queue is looked at when something happened that can free a place (a result, a rejection, a load report, a new link,
a new snapshot). All decisions are synchronous; no call has a task of its own.

A call leaves the router exactly once, through `_finish`. A replica that still works on a call nobody waits for keeps
its place on the link until it answers, so what we believe of its load stays true.
"""

from __future__ import annotations

import asyncio
import random
import time
import weakref
from collections.abc import Callable

from mesh.exceptions import (
    BackPressureError,
    CancelReason,
    DeadlineExceededError,
    DeploymentUnavailableError,
    MeshException,
    ReplicaUnavailableError,
    RequestCancelledError,
    UnserializableError,
)
from mesh.link.caller_link import CallerLink
from mesh.link.outgoing_call import CallState, OutgoingCall
from mesh.routing.call_queue import PendingQueue
from mesh.routing.link_pool import CallerIdentity, Endpoint, LinkPool
from mesh.routing.load_reports import Reading
from mesh.routing.locality import pick_nearest
from mesh.routing.picker import pick_for_model
from mesh.routing.router_metrics import RouterCounts, publish
from mesh.routing.snapshot import DeploymentKey, Snapshot
from mesh.settings import settings
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import Outcome, failed

_CLOSED = "This process left the mesh, or the handle was shut down. Make the call again to connect anew."
_TIMER_MAX_S = 30 * 86400.0
"""Deadlines beyond this are none: event loops cannot count much further."""
_LINGER_S = 10.0
"""How long routers of deleted deployments stay at least: who calls such a one again and again shall not ask the
controller each time."""
_HELD_BACK_MAX = 64
"""Calls that wait for their model, looked at per dispatch before newer ones have to wait too."""


class Router:
    """Routes calls to the replicas of one deployment."""

    def __init__(self, key: DeploymentKey, identity: CallerIdentity) -> None:
        self.key = key
        self.counts = RouterCounts()
        self._snapshot: Snapshot | None = None
        self._queue = PendingQueue()
        self._pool = LinkPool(identity, self)
        self._sequence = 0
        self._all_wait_for_models = True
        """Whatever waits holds out for its model: newer calls may pass."""
        self.is_closed = False
        self.users: weakref.WeakSet[object] = weakref.WeakSet()
        """The handles of this process that share the router."""
        self.on_no_replica: Callable[[Router], None] = _ignore
        """Called when calls wait and no replica is there that could take them, ever."""
        self._random = random.random
        self._loop = io_thread().loop
        publish(self)

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def ongoing(self) -> int:
        return self._pool.ongoing

    @property
    def link_count(self) -> int:
        return self._pool.link_count

    def reading(self) -> Reading:
        """For the controller."""
        interval_s = self._snapshot.load_interval_s if self._snapshot is not None else 0.0
        if interval_s <= 0:
            return Reading(deployment=self.key, interval_s=0.0)
        return Reading(deployment=self.key, interval_s=interval_s, queued=self.queued, ongoing=self.ongoing)

    @property
    def has_no_replica(self) -> bool:
        """Calls wait, and the controller has to start a replica first."""
        return bool(self._queue) and not self.has_replicas

    @property
    def has_replicas(self) -> bool:
        return self._snapshot is not None and bool(self._snapshot.replicas)

    @property
    def can_serve(self) -> bool:
        """A call would be answered: replicas are there, or come when somebody calls."""
        snapshot = self._snapshot
        return self.has_replicas or (snapshot is not None and snapshot.starts_on_demand and not snapshot.unavailable)

    @property
    def can_be_dropped(self) -> bool:
        """Its deployment was deleted some time ago, and no call is left."""
        if self._snapshot is None or not self._snapshot.is_missing:
            return False
        is_over = self._pool.unlisted_at_s + _LINGER_S <= time.monotonic()
        return is_over and not self.counts.collecting and not self._queue and self._pool.is_empty

    # ---- Callers -----------------------------------------------------------------------------------------------------

    def submit(self, call: OutgoingCall) -> None:
        """Send the call to a replica, now or when one has a free place. Its sink hears how it ends."""
        # A cancel may overtake the submission: calls from other threads arrive through a mailbox.
        if not self.start_deadline(call):
            return
        self._sequence += 1
        call.sequence = self._sequence
        if not self._queue or self._all_wait_for_models:
            endpoint = self._pick(call)
            if endpoint is not None:
                self._send(endpoint, call)
                return
            self._all_wait_for_models = bool(call.request.context.multiplexed_model_id)
        self._enqueue(call)

    def start_deadline(self, call: OutgoingCall) -> bool:
        """Let the deadline of a call count, before its arguments are there. Returns False when the call has ended."""
        if call.state is not CallState.DONE and self.is_closed:
            self._finish(call, failed(self._closed()))
        if call.state is not CallState.DONE and call.request.deadline_at_s is not None and call.timer is None:
            self._set_timer(call)
        return call.state is not CallState.DONE

    def cancel(self, call: OutgoingCall, reason: CancelReason) -> None:
        """End the call now with CANCELLED and send the reason to the replica that has it, if any. Idempotent."""
        if call.state is CallState.DONE:
            return
        self.counts.cancelled += 1
        self._abandon(call, RequestCancelledError(reason=reason), reason)

    def fail_unsubmitted(self, call: OutgoingCall, outcome: Outcome) -> None:
        """End a call that was never submitted."""
        if call.state is not CallState.DONE:
            self._finish(call, outcome)

    def update(self, snapshot: Snapshot) -> None:
        """Take over a newer picture of the replicas."""
        self._snapshot = snapshot
        self._pool.update(snapshot)
        if snapshot.unavailable:
            for call in self._queue.drain():
                self._finish(call, failed(self._unavailable()))
        self._dispatch()
        if self.has_no_replica:
            self.on_no_replica(self)

    async def close(self) -> None:
        """Fail what waits and close all links. Calls that come later fail at once."""
        self.is_closed = True
        self.counts.withdraw()
        await asyncio.gather(*self._pool.close(), return_exceptions=True)
        # Last: links give back the calls that they had not sent.
        for call in self._queue.drain():
            self._finish(call, failed(self._closed()))

    def identify(self, identity: CallerIdentity) -> None:
        """Introduce this process in another way from the next link on."""
        self._pool.identity = identity

    # ---- Links (LinkObserver) ----------------------------------------------------------------------------------------

    def on_ready(self, link: CallerLink) -> None:
        self._pool.refresh()
        self._dispatch()

    def on_load(self, link: CallerLink) -> None:
        endpoint = self._pool.endpoint_of(link)
        if endpoint is not None:
            endpoint.forget_expected()
        if link.is_draining:
            self._pool.refresh()
        if self._queue:
            self._dispatch()

    def on_result(self, link: CallerLink, call: OutgoingCall, outcome: Outcome) -> None:
        self._pool.record_load(link)
        if call.state is CallState.SENT:
            self._finish(call, outcome)
        self._pool.close_if_idle(link)
        if self._queue:
            self._dispatch()

    def on_reject(self, link: CallerLink, call: OutgoingCall) -> None:
        self.counts.rejected += 1
        endpoint = self._pool.endpoint_of(link)
        if link.is_draining:
            self._pool.refresh()
        elif endpoint is not None:
            # Full whatever we thought of its limit. It tells when a place gets free.
            link.others_ongoing = max(link.others_ongoing, endpoint.limit - link.ongoing)
        if call.state is CallState.SENT:
            self.counts.retried_rejected += 1
            if not link.is_draining:
                # A full replica rejects again and again under overload: that is waiting, not failing.
                call.attempts -= 1
            self._take_back(call, link.replica_id, "it refuses calls")
        self._pool.close_if_idle(link)
        self._dispatch()

    def on_broken(self, link: CallerLink, reason: str, unsent: list[OutgoingCall], sent: list[OutgoingCall]) -> None:
        self._pool.refresh()
        again, lost = list(unsent), list[OutgoingCall]()
        for call in sent:
            (again if call.request.is_retry_safe_after_send else lost).append(call)
        # Newest first: each then goes to the front of the queue, or near it.
        again.sort(key=_sequence, reverse=True)
        for call in again:
            if call.state is CallState.SENT:
                self.counts.retried_broken += 1
                self._take_back(call, link.replica_id, reason)
        for call in lost:
            if call.state is CallState.SENT:
                self._finish(call, failed(ReplicaUnavailableError(link.replica_id, reason)))
        self._dispatch()

    # ---- Decisions ---------------------------------------------------------------------------------------------------

    def _pick(self, call: OutgoingCall) -> Endpoint | None:
        model_id = call.request.context.multiplexed_model_id
        if model_id:
            return self._pick_for_model(call, model_id)
        if call.request.prefers_local:
            return pick_nearest(self._pool.local_first, self._random)
        return self._pool.all.pick(self._random)

    def _pick_for_model(self, call: OutgoingCall, model_id: str) -> Endpoint | None:
        now_s = time.monotonic()
        may_spill = 0 < call.spills_at_s <= now_s
        endpoint = pick_for_model(self._pool.all.candidates, model_id, self._random, may_spill=may_spill)
        if endpoint is None and not call.spills_at_s:
            delay_s = settings().routing.multiplex_spill_delay_s
            call.spills_at_s = now_s + delay_s
            self._loop.call_later(delay_s + 0.001, self._dispatch)
        return endpoint

    def _dispatch(self) -> None:
        """Send what can be sent, oldest first. Calls that hold out for their model let newer ones pass."""
        queue = self._queue
        held: list[OutgoingCall] = []
        while queue and len(held) < _HELD_BACK_MAX:
            call = queue.pop()
            endpoint = self._pick(call)
            if endpoint is not None:
                self._send(endpoint, call)
                continue
            held.append(call)
            if not call.request.context.multiplexed_model_id:
                break
        self._all_wait_for_models = not queue and all(map(_waits_for_model, held))
        for call in reversed(held):
            queue.restore(call)

    def _send(self, endpoint: Endpoint, call: OutgoingCall) -> None:
        if call.request.context.multiplexed_model_id:
            endpoint.expect_model(call.request.context.multiplexed_model_id)
        assert endpoint.link is not None
        try:
            endpoint.link.send(call)
        except (TypeError, ValueError, OverflowError) as error:
            # Strings that are no UTF-8, metadata of odd types: whoever made the call hears of it, nobody else.
            self._finish(call, failed(UnserializableError(f"The call cannot be sent: {error}")))

    def _enqueue(self, call: OutgoingCall) -> None:
        snapshot = self._snapshot
        if snapshot is not None and snapshot.unavailable:
            self._finish(call, failed(self._unavailable()))
            return
        limit = snapshot.max_queued_requests if snapshot is not None else -1
        if 0 <= limit <= len(self._queue):
            self.counts.dropped += 1
            error = BackPressureError(num_queued_requests=len(self._queue), max_queued_requests=limit)
            self._finish(call, failed(error))
            return
        self._queue.push(call)
        if len(self._queue) == 1 and self.has_no_replica:
            self.on_no_replica(self)

    def _take_back(self, call: OutgoingCall, replica_id: str, reason: str) -> None:
        """From a replica. It did not run there, unless it is one that may run twice."""
        call.state = CallState.QUEUED
        call.link = None
        if call.attempts >= settings().routing.retry_attempts_max:
            self._give_up(call, replica_id, f"{reason} (attempt {call.attempts}, the last one)")
        elif call.request.streams_request and call.has_sent_items:
            # They are gone: only their producer could repeat them.
            self._give_up(call, replica_id, reason)
        else:
            call.request_credit = 0
            self._queue.restore(call)

    # ---- Ends --------------------------------------------------------------------------------------------------------

    def _set_timer(self, call: OutgoingCall) -> None:
        assert call.request.deadline_at_s is not None
        remaining_s = call.request.deadline_at_s - time.monotonic()
        if remaining_s <= 0:
            self._finish(call, failed(DeadlineExceededError()))
        elif remaining_s < _TIMER_MAX_S:
            call.timer = self._loop.call_later(remaining_s, self._expire, call)

    def _expire(self, call: OutgoingCall) -> None:
        if call.state is not CallState.DONE:
            self._abandon(call, DeadlineExceededError(), CancelReason.DEADLINE)

    def _abandon(self, call: OutgoingCall, error: MeshException, reason: CancelReason) -> None:
        if call.state is CallState.SENT and call.link is not None:
            call.link.cancel(call, reason)
        else:
            self._queue.remove(call)
        self._finish(call, failed(error))

    def _finish(self, call: OutgoingCall, outcome: Outcome) -> None:
        call.state = CallState.DONE
        if call.timer is not None:
            call.timer.cancel()
        self.counts.methods[call.request.method].count(outcome.code, time.monotonic() - call.started_s)
        call.sink.on_done(outcome)

    def _give_up(self, call: OutgoingCall, replica_id: str, reason: str) -> None:
        maybe_executed = call.request.is_retry_safe_after_send
        self._finish(call, failed(ReplicaUnavailableError(replica_id, reason, maybe_executed=maybe_executed)))

    def _closed(self) -> MeshException:
        # A call may have been on its way here when the router of a deleted deployment was let go of.
        is_missing = self._snapshot is not None and self._snapshot.is_missing
        return self._unavailable() if is_missing else RequestCancelledError(_CLOSED)

    def _unavailable(self) -> DeploymentUnavailableError:
        assert self._snapshot is not None
        return DeploymentUnavailableError(str(self.key), self._snapshot.unavailable)


def _ignore(router: Router) -> None:
    """For routers of a process that has no controller to tell."""


def _sequence(call: OutgoingCall) -> int:
    return call.sequence


def _waits_for_model(call: OutgoingCall) -> bool:
    return bool(call.request.context.multiplexed_model_id)
