"""The router of one deployment: every call of this process to the deployment passes through it. I/O loop only.

Theory of operation. A call is sent immediately if a replica has a free place, else it waits. Nothing polls: each event
that can free a place (a result, a rejection, a load report, a new link, a new snapshot) sends waiting calls. All
decisions are synchronous; no call has a task of its own.

A call leaves the router exactly once, through `_finish`. A call that was given up while a replica works on it stays on
the link until the replica answers, so the load that we count for the replica stays correct.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import weakref
from collections.abc import Callable

from mesh.exceptions import (
    CancelReason,
    DeadlineExceededError,
    MeshException,
    ReplicaUnavailableError,
    RequestCancelledError,
    UnserializableError,
)
from mesh.link.caller_link import CallerLink
from mesh.link.outgoing_call import DEADLINE_TIMER_MAX_S, DONE, QUEUED, SENT, OutgoingCall, answer_lead_s
from mesh.routing.endpoint import Endpoint
from mesh.routing.hedging import Hedges
from mesh.routing.link_pool import CallerIdentity, LinkPool
from mesh.routing.listing import Listing, replica_gone
from mesh.routing.load_reports import Reading
from mesh.routing.retry_budget import RetryBudget
from mesh.routing.router_metrics import RouterCounts, publish
from mesh.routing.snapshot import DeploymentKey, Snapshot
from mesh.routing.waiting.places import queued_text, sent_late_text
from mesh.routing.waiting.queue_timeouts import QueueTimeouts
from mesh.routing.waiting.waiting_calls import WaitingCalls
from mesh.rpc.status_codes import UNAVAILABLE
from mesh.settings import settings
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import Outcome, failed

logger = logging.getLogger("mesh")

_UNDELIVERABLE = "A response came, but this process failed to take it; its log has the reason."
_TIMER_RESOLUTION_S = 0.001
"""A timer of the event loop may fire this much too early."""


class Router:
    """Routes calls to the replicas of one deployment."""

    def __init__(
        self,
        key: DeploymentKey,
        identity: CallerIdentity,
        on_no_replica: Callable[[Router], None] = lambda router: None,
    ) -> None:
        """`on_no_replica` is called when calls wait and the controller has to start a replica for them."""
        self.key = key
        self.counts = RouterCounts()
        self.listing = Listing(key)
        self.pool = LinkPool(identity, self, self.counts, lambda: self.queue.dispatch())
        self.queue = WaitingCalls(self.pool, self._send)
        self.timeouts = QueueTimeouts(self.queue, self._expire_queued, self.why_queued)
        self._budget = RetryBudget()
        self.hedges = Hedges(self.queue, self._send, self, self.counts)
        self.is_closed = False
        self.users: weakref.WeakSet[object] = weakref.WeakSet()
        """The handles of this process that share the router."""
        self._on_no_replica = on_no_replica
        self._loop = io_thread().loop
        publish(self)

    def __repr__(self) -> str:
        phase = "closed" if self.is_closed else "connected" if self.link_count else "without links"
        return f"<Router {self.key}, {phase}, queued: {self.queued}, ongoing: {self.ongoing}>"

    @property
    def queued(self) -> int:
        return len(self.queue)

    @property
    def ongoing(self) -> int:
        return self.pool.ongoing

    @property
    def link_count(self) -> int:
        return self.pool.link_count

    def reading(self) -> Reading:
        """Queued and ongoing calls, to be reported to the controller."""
        interval_s = self.listing.load_interval_s
        return Reading(deployment=self.key, interval_s=interval_s, queued=self.queued, ongoing=self.ongoing)

    @property
    def has_no_replica(self) -> bool:
        """Calls wait, and the controller has to start a replica first."""
        return bool(self.queue) and not self.has_replicas

    @property
    def has_replicas(self) -> bool:
        return bool(self.listing.replicas)

    @property
    def can_serve(self) -> bool:
        """Whether a call can be answered: there are replicas, or the first call starts one."""
        return self.listing.can_serve

    @property
    def can_be_dropped(self) -> bool:
        """Whether its deployment was deleted some time ago and no call is left."""
        if not self.listing.is_missing:
            return False
        is_over = self.pool.unlisted_at_s + settings().routing.router_linger_s <= time.monotonic()
        return is_over and not self.counts.collecting and not self.queue and self.pool.is_empty

    # ---- Callers -----------------------------------------------------------------------------------------------------

    def submit(self, call: OutgoingCall) -> None:
        """Send the call to a replica, now or when one has a free place. Its sink gets the outcome."""
        if not self.start_deadline(call):
            return  # a cancel overtook the submission: calls from other threads arrive through a mailbox
        if call.request.hedge is not None:
            self.hedges.watch(call, call.request.hedge)
        endpoint = self.queue.enter(call)
        if endpoint is not None:
            self._send(endpoint, call)
        else:
            self._enqueue(call)

    def start_deadline(self, call: OutgoingCall) -> bool:
        """Start the timer of a call whose arguments may not be complete yet. Returns False if the call has ended."""
        deadline_at_s = call.request.deadline_at_s
        if call.state is not DONE and self.is_closed:
            self._finish(call, failed(self.listing.closed()))
        elif call.state is not DONE and deadline_at_s is not None and call.timer is None:
            remaining_s = deadline_at_s - time.monotonic()
            if remaining_s <= 0:
                self._finish(call, failed(DeadlineExceededError()))
            elif remaining_s < DEADLINE_TIMER_MAX_S:
                call.timer = self._loop.call_later(remaining_s - answer_lead_s(remaining_s), self._expire, call)
        return call.state is not DONE

    def cancel(self, call: OutgoingCall, reason: CancelReason) -> None:
        """End the call now with CANCELLED and send the reason to the replica that has it, if any. Idempotent."""
        if call.state is DONE:
            return
        self.counts.cancelled += 1
        self.end(call, failed(RequestCancelledError(reason=reason)), reason)

    def why_queued(self, call: OutgoingCall) -> str:
        """How long the call has waited and for what, in words; empty if it is not queued. From any thread."""
        if call not in self.queue:
            return ""
        return queued_text(self.key, time.monotonic() - call.started_at_s, self.pool.places())

    def update(self, snapshot: Snapshot) -> None:
        """Replace the snapshot by a newer one."""
        early = self.queue.drain() if self.listing.snapshot is None else ()
        self.listing.snapshot = snapshot
        self.pool.update(snapshot)
        for call in early:
            self._enqueue(call)  # the limit of the queue was not known
        self.queue.follow(snapshot)
        self.timeouts.set_default(snapshot.queue_timeout_s or math.inf)
        if snapshot.unavailable:
            for call in self.queue.drain():
                self._finish(call, failed(self.listing.unavailable()))
        self.queue.dispatch()
        for call in self.queue.take_unreachable():
            self._finish(call, failed(replica_gone(call)))
        if self.has_no_replica:
            self._on_no_replica(self)
        self.listing.publish()

    async def close(self) -> None:
        """Fail queued calls and close all links. Later calls fail immediately."""
        self.is_closed = True
        self.counts.withdraw()
        self.timeouts.close()
        self.hedges.close()
        self.listing.close()
        await asyncio.gather(*self.pool.close(), return_exceptions=True)
        # Last: links give back the calls that they had not sent.
        for call in self.queue.drain():
            self._finish(call, failed(self.listing.closed()))

    def identify(self, identity: CallerIdentity) -> None:
        """Use this identity for new links."""
        self.pool.identity = identity

    # ---- Links (LinkObserver) ----------------------------------------------------------------------------------------

    def on_ready(self, link: CallerLink) -> None:
        self.pool.refresh()
        self.queue.dispatch()

    def on_load(self, link: CallerLink) -> None:
        changed_models = self.pool.record_load(link)
        if link.is_draining:
            self.pool.refresh()
        if self.queue:
            self.queue.release_unheld(changed_models)
            self.queue.dispatch_to(self.pool.serving(link))

    def on_result(self, link: CallerLink, call: OutgoingCall, outcome: Outcome) -> None:
        endpoint = self.pool.endpoint_of(link)
        if endpoint is not None:
            self.pool.record_result(endpoint, outcome.code)
        if call.state is SENT:
            if outcome.code and self._may_retry(call, outcome.code):
                self._retry(call)
            elif not outcome.code or not self.hedges.withholds(call, outcome):
                self._finish(call, outcome)
        self.pool.close_if_idle(link)
        if self.queue:
            self.queue.dispatch_to(self.pool.serving(link))

    def on_undeliverable(self, call: OutgoingCall) -> None:
        self.end(call, failed(MeshException(_UNDELIVERABLE)), CancelReason.CLIENT)

    def on_reject(self, link: CallerLink, call: OutgoingCall) -> None:
        self.counts.rejected += 1
        self.pool.record_rejected(link)
        if call.state is SENT:
            self.counts.retries.rejected += 1
            # Only by one that drains is it a failure: under overload a call may be rejected many times.
            call.failed_attempts += link.is_draining
            call.request.is_beyond_limit = False  # too large for a full replica: it now waits like others
            self._take_back(call, link.replica_id, "it refuses calls", maybe_executed=False)
        self.pool.close_if_idle(link)
        self.queue.dispatch_like(call)

    def on_broken(self, link: CallerLink, reason: str, unsent: list[OutgoingCall], sent: list[OutgoingCall]) -> None:
        self.pool.record_broken(link, len(sent))
        self.pool.refresh()
        calls = [(call, False) for call in unsent] + [(call, True) for call in sent]
        # Newest first, so that each call goes back to the front of the queue or close to it.
        calls.sort(key=lambda each: each[0].sequence, reverse=True)
        for call, was_sent in calls:
            if call.state is not SENT:
                continue
            is_safe = not was_sent or (call.request.is_idempotent and call.request.is_unary)
            if not is_safe and not self._may_retry(call, UNAVAILABLE):
                self._finish(call, failed(ReplicaUnavailableError(link.replica_id, reason)))
                continue
            self.counts.retries.broken += 1
            call.failed_attempts += 1
            self._take_back(call, link.replica_id, reason, maybe_executed=was_sent)
        self.queue.dispatch()

    # ---- Decisions ---------------------------------------------------------------------------------------------------

    def _send(self, endpoint: Endpoint, call: OutgoingCall) -> None:
        if call.request.context.multiplexed_model_id:
            self.pool.expect_model(endpoint, call.request.context.multiplexed_model_id)
        assert endpoint.link is not None
        try:
            endpoint.link.send(call)
        except (TypeError, ValueError, OverflowError) as error:
            # Text that is not valid UTF-8, or metadata of a wrong type. Only this call fails, not the link.
            self._finish(call, failed(UnserializableError(f"The call cannot be sent: {error}")))

    def _enqueue(self, call: OutgoingCall) -> None:
        refusal = self.listing.why_refused or (replica_gone(call) if self.queue.is_unreachable(call) else None)
        if refusal is not None:
            self._finish(call, failed(refusal))
            return
        if 0 <= self.listing.queued_max <= self.queue.waiting and not call.request.is_beyond_limit:
            self.counts.dropped += 1
            self._finish(call, failed(self.listing.back_pressure(self.queued, self.pool.places().usage)))
            return
        self.queue.push(call)
        self.timeouts.watch(call)
        if len(self.queue) == 1 and self.has_no_replica:
            self._on_no_replica(self)

    def _may_retry(self, call: OutgoingCall, code: int) -> bool:
        """Whether a call that failed at a replica is sent again. Takes it off the budget."""
        policy = call.request.retry if call.request.is_unary and not self.queue.is_unreachable(call) else None
        return policy is not None and self._budget.allows(policy, code, call.failed_attempts + 1, self.queue.entered)

    def _retry(self, call: OutgoingCall) -> None:
        call.failed_attempts += 1
        self.counts.retries.failed += 1
        call.state = QUEUED
        self.queue.restore(call)
        self.queue.dispatch_like(call)

    def _take_back(self, call: OutgoingCall, replica_id: str, reason: str, *, maybe_executed: bool) -> None:
        """Queue a call again that a replica did not run, or that may run twice, unless no attempt or target is left."""
        call.state = QUEUED
        call.link = None
        is_last = call.failed_attempts >= settings().routing.retry_attempts_max
        if is_last or self.queue.is_unreachable(call):
            reason = f"{reason} (attempt {call.failed_attempts}, the last one)" if is_last else reason
            self._finish(call, failed(ReplicaUnavailableError(replica_id, reason, maybe_executed=maybe_executed)))
        else:
            call.request_credit = 0
            self.queue.restore(call)
            self.timeouts.watch(call)

    # ---- Ends --------------------------------------------------------------------------------------------------------

    def end(self, call: OutgoingCall, outcome: Outcome, reason: CancelReason) -> None:
        """End a call with this outcome, unless it has ended; its replica, if any, gets the reason."""
        if call.state is DONE:
            return
        if call.state is SENT and call.link is not None:
            call.link.cancel(call, reason)
        else:
            self.queue.remove(call)
        self._finish(call, outcome)

    def _expire(self, call: OutgoingCall) -> None:
        """The deadline is near: end the call if it is queued. Any other gets all its time."""
        deadline_at_s, now_s = call.request.deadline_at_s, time.monotonic()
        if call.state is DONE or deadline_at_s is None:
            return
        queued = self.why_queued(call)
        if not queued and deadline_at_s - now_s > _TIMER_RESOLUTION_S:
            call.timer = self._loop.call_later(deadline_at_s - now_s, self._expire, call)
            return
        waited = queued or sent_late_text(self.key, call.waited_s, now_s - call.started_at_s)
        self.end(call, failed(DeadlineExceededError.after_waiting(waited)), CancelReason.DEADLINE)

    def _expire_queued(self, call: OutgoingCall, timeout_s: float) -> None:
        """The call has waited too long for a place."""
        self.counts.dropped += 1
        error = self.listing.queue_timeout(self.queued, self.why_queued(call), timeout_s)
        self.end(call, failed(error), CancelReason.DEADLINE)

    def _finish(self, call: OutgoingCall, outcome: Outcome) -> None:
        now_s = time.monotonic()
        if call.state is QUEUED:
            call.waited_s = now_s - call.started_at_s
        call.state = DONE
        if call.timer is not None:
            call.timer.cancel()
        if call.request.hedge is not None and self.hedges.on_end(call, outcome):
            return
        self.counts.end(call.request.method, outcome, now_s - call.started_at_s, call.waited_s)
        try:
            call.sink.on_done(outcome)
        except Exception:
            logger.exception("a call of %s has ended, but its process failed to take the outcome", call.request.method)
