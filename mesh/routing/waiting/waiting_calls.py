"""The calls that wait for a replica, and which of them goes next. I/O loop only.

Theory of operation. Most calls wait in one queue, for any replica, in which their sources take turns: the connections
of a gateway's clients. A call for a model that some replicas hold waits in the queue of that model first; after a short
while it joins the other queue, so that a model in demand spreads. An event names the replica that may have a free
place: it gets the oldest of the first call of the common queue and the first calls of the models that it holds. So an
event costs the same however many replicas there are and calls wait. Only changes of the set of replicas have to look
at all of them. When no replica holds a model any more, its calls go to the common queue, at their places by age.

Calls with targets may go to certain replicas only. They wait in a queue of their own, in which every event looks for
the first one that fits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from random import Random

from mesh.link.outgoing_call import OutgoingCall
from mesh.routing.choice.locality import pick_nearest
from mesh.routing.choice.picker import pick, pick_for_model, pick_for_session
from mesh.routing.custom.custom_choice import CustomChoice
from mesh.routing.custom.router_thread import HostedRouter
from mesh.routing.endpoint import Endpoint
from mesh.routing.link_pool import LinkPool
from mesh.routing.snapshot import RouterSpec, Snapshot
from mesh.routing.waiting.call_queue import PendingQueue
from mesh.routing.waiting.fair_queue import FairQueue
from mesh.settings import settings
from mesh.wire.io_thread import io_thread


class WaitingCalls:
    """Calls of a source in the order of their submission, except those that have waited too long for their model."""

    def __init__(self, pool: LinkPool, send: Callable[[Endpoint, OutgoingCall], None]) -> None:
        self._pool = pool
        self._send = send
        self._random = Random().random
        """Not the generator of the program, which may have seeded it."""
        self._last_sequence = 0
        self._common = FairQueue()
        """For any replica. While a call is here, all replicas are full."""
        self._by_model: dict[str, PendingQueue] = {}
        """For a replica that holds the model; no queue is empty."""
        self._for_models = PendingQueue()
        """The calls of all these queues."""
        self._targeted = FairQueue()
        """For certain replicas only."""
        self.custom: CustomChoice | None = None
        """The deployment's own choice of replicas, if it has one."""
        self._router_spec: RouterSpec | None = None
        self._timer: asyncio.TimerHandle | None = None
        """Fires when the oldest call that waits for a model has waited long enough."""

    @property
    def entered(self) -> int:
        """Calls that have entered since the start; one that moves to the common queue counts again."""
        return self._last_sequence

    def __len__(self) -> int:
        return len(self._common) + len(self._for_models) + len(self._targeted)

    def __bool__(self) -> bool:
        return bool(self._common.calls or self._for_models.calls or self._targeted.calls)

    def __iter__(self) -> Iterator[OutgoingCall]:
        return chain(self._common, self._for_models, self._targeted)

    def __contains__(self, call: OutgoingCall) -> bool:
        return call in self._common or call in self._for_models or call in self._targeted

    @property
    def waiting(self) -> int:
        """Calls that wait for a place: less those that a first link takes, and unranked ones that find places free."""
        unranked = self.custom.unranked if self.custom is not None else 0
        taking = min(unranked, self._pool.places().free) if unranked else 0
        return max(0, len(self) - taking - self._pool.places_to_come)

    def follow(self, snapshot: Snapshot) -> None:
        """Let calls be ranked by the request router that the deployment has now, if any."""
        spec = snapshot.request_router
        if spec == self._router_spec:
            return
        held = self.custom.release_all() if self.custom is not None else []
        self._router_spec, self.custom = spec, None
        if spec is not None:
            identity = self._pool.identity
            hosted = HostedRouter(spec, snapshot.deployment, identity.node_id, identity.zone)
            self.custom = CustomChoice(hosted, self._pool, self._dispatch_target)
        waiting = self.drain() if spec is not None else held
        for call in waiting:
            self.remove(call)
            self.push(call)

    # ---- Calls come and go -------------------------------------------------------------------------------------------

    def enter(self, call: OutgoingCall) -> Endpoint | None:
        """Number a new call and find a replica for it. None if it has to wait."""
        self._last_sequence += 1
        call.sequence = self._last_sequence
        request, pool = call.request, self._pool
        if request.targets is not None:
            return self._pick_target(call, request.targets)
        if pool.split is not None:
            pool.split.decide(request)
        if self.custom is not None:
            return None
        if pool.canary is not None and (found := self._pick_canary(call)) is not None:
            return found
        if self._by_model and (model_id := _model_of(call)) in self._by_model:
            if pool.holders_of(model_id):
                return None
            self.release_unheld((model_id,))
        return None if self._common.calls else self._pick(call, may_spill=False)

    def push(self, call: OutgoingCall) -> None:
        """Let a call wait that is newer than all others. It may have come before the router knew of any replica."""
        if call.request.targets is None and self._pool.split is not None:
            self._pool.split.decide(call.request)
        if self.custom is not None and call.request.targets is None:
            call.request.targets = ()
            self._targeted.push(call)
            self.custom.hold(call)  # may send it at once
            return
        if call.request.targets is not None:
            self._targeted.push(call)
            return
        model_id = _model_of(call)
        if not model_id or not self._pool.holders_of(model_id):
            self._common.push(call)
            return
        call.spills_at_s = time.monotonic() + settings().routing.multiplex_spill_delay_s
        self._by_model.setdefault(model_id, PendingQueue()).push(call)
        self._for_models.push(call)
        self._start_timer()

    def restore(self, call: OutgoingCall) -> None:
        """Let a call wait again that was sent, in its place by age."""
        if self.custom is None and not call.request.is_pinned:
            call.request.targets = None  # of a request router that has been removed meanwhile
        if call.request.targets is not None:
            self._targeted.restore(call)
            if self.custom is not None and not call.request.is_pinned:
                self.custom.resume(call)
        elif call.spills_at_s > time.monotonic() and self._pool.holders_of(_model_of(call)):
            self._by_model.setdefault(_model_of(call), PendingQueue()).restore(call)
            self._for_models.restore(call)
            self._start_timer()
        else:
            self._common.restore(call)

    def remove(self, call: OutgoingCall) -> None:
        """Forget a call, if it waits."""
        self._common.remove(call)
        self._targeted.remove(call)
        if self.custom is not None:
            self.custom.forget(call)
        if call in self._for_models:
            self._for_models.remove(call)
            model_id = _model_of(call)
            self._by_model[model_id].remove(call)
            if not self._by_model[model_id]:
                del self._by_model[model_id]

    def drain(self) -> list[OutgoingCall]:
        """Take all calls, oldest first."""
        self._by_model.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.custom is not None:
            self.custom.release_all()
        calls = self._common.drain() + self._for_models.drain() + self._targeted.drain()
        return sorted(calls, key=lambda call: call.sequence)

    def take_unreachable(self) -> list[OutgoingCall]:
        """Take the calls all whose targets are gone."""
        found = [call for call in self._targeted if self.is_unreachable(call)]
        for call in found:
            self.remove(call)
        return found

    def is_unreachable(self, call: OutgoingCall) -> bool:
        """Whether its caller named targets, none of which is listed. Other calls get new ones from their router."""
        targets = call.request.targets if call.request.is_pinned else None
        return targets is not None and not any(self._pool.find(name) for group in targets for name in group)

    # ---- Dispatch ----------------------------------------------------------------------------------------------------

    def dispatch_to(self, endpoint: Endpoint | None) -> None:
        """The replica, if it may get calls, may have free places: give them to the oldest calls that it can serve."""
        while endpoint is not None and self and endpoint.load < endpoint.limit:
            call = self._first_for(endpoint)
            if call is None:
                return
            self._take(call, endpoint)

    def dispatch_like(self, call: OutgoingCall) -> None:
        """Send what can be sent of the queue that the call is in."""
        if call.request.targets is not None:
            self._dispatch_target(call)
        else:
            self._dispatch_queue(self._common if call in self._common else self._by_model.get(_model_of(call)))

    def dispatch(self) -> None:
        """Send what can be sent, after a change of the set of replicas or of their limit."""
        self.release_unheld(self._by_model)
        self._dispatch_queue(self._common)
        for queue in list(self._by_model.values()):
            self._dispatch_queue(queue)
        for call in list(self._targeted):
            self._dispatch_target(call)
        if self.custom is not None:
            self.custom.ask_again()

    def release_unheld(self, model_ids: Iterable[str]) -> None:
        """A replica may have dropped these models: calls that waited for the last one that had them wait for any."""
        unheld = [each for each in model_ids if each in self._by_model and not self._pool.holders_of(each)]
        if not unheld:
            return
        released = [call for model_id in unheld for call in self._by_model.pop(model_id).drain()]
        for call in released:
            self._for_models.remove(call)
        self._common.merge(released)
        self._dispatch_queue(self._common)

    def _dispatch_queue(self, queue: FairQueue | PendingQueue | None) -> None:
        while queue:
            call = queue.first
            endpoint = self._pick(call, may_spill=queue is self._common)
            if endpoint is None:
                return
            self._take(call, endpoint)

    def _dispatch_target(self, call: OutgoingCall) -> None:
        endpoint = self._pick_target(call, call.request.targets or ()) if call in self._targeted else None
        if endpoint is not None:
            self._take(call, endpoint)

    def _take(self, call: OutgoingCall, endpoint: Endpoint) -> None:
        if self.custom is not None:
            self.custom.on_sent(call, endpoint)
        (self._targeted if call in self._targeted else self._common).count_turn(call)
        self.remove(call)
        call.waited_s = time.monotonic() - call.started_at_s
        self._send(endpoint, call)

    def _first_for(self, endpoint: Endpoint) -> OutgoingCall | None:
        """The oldest call for any replica or for a model that this one holds.

        For a replica of a canary only if it is of the canary's share; the version beside it serves both.
        """
        first = self._common.first if self._common else None
        canary = self._pool.canary
        is_canary = canary is not None and endpoint in canary
        if canary is not None and is_canary and first is not None and not canary.serves(first):
            first = None
        held = self._by_model if len(self._by_model) < endpoint.model_count else endpoint.models()
        for model_id in () if is_canary else held:
            queue = self._by_model.get(model_id)
            if queue and endpoint.holds(model_id) and (first is None or queue.first.sequence < first.sequence):
                first = queue.first
        for call in self._targeted:
            if first is not None and first.sequence < call.sequence:
                break
            if any(endpoint.name in group for group in call.request.targets or ()):
                return call
        return first

    def _pick(self, call: OutgoingCall, *, may_spill: bool) -> Endpoint | None:
        found = self._pick_any(call, may_spill=may_spill)
        if found is None or call.link is None or call.link is not found.link:
            return found
        others = [endpoint for endpoint in self._pool.all.candidates if endpoint is not found]
        return pick(others, self._random) or found

    def _pick_target(self, call: OutgoingCall, targets: Sequence[frozenset[str]]) -> Endpoint | None:
        for group in targets:
            listed = [endpoint for name in group if (endpoint := self._pool.find(name)) is not None]
            usable = [endpoint for endpoint in listed if endpoint.is_usable]
            if usable and call.request.is_beyond_limit:
                return usable[0]
            found = pick(usable, self._random)
            if found is not None:
                return found
        return None

    def _pick_canary(self, call: OutgoingCall) -> Endpoint | None:
        """A replica of the canary that has a free place, for a call of its share."""
        canary = self._pool.canary
        return canary.pick(call, self._random) if canary is not None and canary.serves(call) else None

    def _pick_any(self, call: OutgoingCall, *, may_spill: bool) -> Endpoint | None:
        request, pool = call.request, self._pool
        if pool.canary is not None and (found := self._pick_canary(call)) is not None:
            return found
        model_id = request.context.multiplexed_model_id
        if model_id:
            holders = pool.holders_of(model_id)
            copies_min = holders[0].copies_min if holders else 1
            candidates = pool.all.candidates
            return pick_for_model(holders, candidates, self._random, may_spill=may_spill, copies_min=copies_min)
        affinity = request.session_id or request.context.tenant
        if affinity:
            return pick_for_session(affinity, pool.all.candidates)
        if request.prefers_local:
            return pick_nearest(pool.local_first, self._random)
        return pool.all.pick(self._random)

    # ---- The end of the wait for a model -----------------------------------------------------------------------------

    def _start_timer(self) -> None:
        if self._timer is None and self._for_models:
            delay_s = max(0.0, self._for_models.first.spills_at_s - time.monotonic())
            self._timer = io_thread().loop.call_later(delay_s, self._spill)

    def _spill(self) -> None:
        """Move the calls that have waited long enough for their model to the queue for any replica."""
        self._timer = None
        now_s = time.monotonic()
        while self._for_models and self._for_models.first.spills_at_s <= now_s:
            call = self._for_models.first
            self.remove(call)
            # It moves behind calls of its source that came in the meantime: these are in the order of their numbers.
            self._last_sequence += 1
            call.sequence = self._last_sequence
            self._common.push(call)
        self._dispatch_queue(self._common)
        self._start_timer()


def _model_of(call: OutgoingCall) -> str:
    return call.request.context.multiplexed_model_id
