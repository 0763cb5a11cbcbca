"""Waiting calls in fake time, and the replicas as they see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from mesh.link.caller_link import CallerLink
from mesh.link.link_phases import CallerPhase
from mesh.link.outgoing_call import CallRequest, OutgoingCall
from mesh.link.replica_facts import ReplicaFacts
from mesh.routing.canary_candidates import CanaryCandidates
from mesh.routing.choice.locality import Locality
from mesh.routing.choice.traffic_split import TrafficSplit
from mesh.routing.endpoint import Endpoint
from mesh.routing.model_holders import ModelHolders
from mesh.routing.snapshot import ReplicaInfo
from mesh.routing.waiting import waiting_calls
from mesh.routing.waiting.waiting_calls import WaitingCalls
from mesh.wire.request_context import RequestContext


class World:
    """Waiting calls in fake time. A call that is sent occupies its replica until `end`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, replicas: int, limit: int = 1) -> None:
        self.now_s = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.pool = Pool(replicas, limit)
        self.sent: list[tuple[Endpoint, OutgoingCall]] = []
        self.running: list[tuple[Endpoint, OutgoingCall]] = []
        loop = SimpleNamespace(call_later=self._call_later)
        monkeypatch.setattr(waiting_calls, "io_thread", lambda: SimpleNamespace(loop=loop))
        monkeypatch.setattr(waiting_calls, "time", SimpleNamespace(monotonic=lambda: self.now_s))
        self.calls = WaitingCalls(self.pool, self._send)  # type: ignore[arg-type]

    def submit(
        self,
        model_id: str = "",
        session_id: str = "",
        source: str = "",
        targets: Sequence[frozenset[str]] | None = None,
    ) -> OutgoingCall:
        context = RequestContext("id", multiplexed_model_id=model_id)
        request = CallRequest("m", None, context, session_id=session_id, targets=targets, source=source)
        call = OutgoingCall(request, None)  # type: ignore[arg-type]
        endpoint = self.calls.enter(call)
        if endpoint is not None:
            self._send(endpoint, call)
        else:
            self.calls.push(call)
        return call

    def end(self, number: int = 0) -> Endpoint:
        endpoint, call = self.running.pop(number)
        assert endpoint.link is not None
        del endpoint.link._calls[call.call_id]
        self.calls.dispatch_to(endpoint)
        return endpoint

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now_s]
        self.timers = [timer for timer in self.timers if timer not in due]
        for _, run in due:
            run()

    def _call_later(self, delay_s: float, run: Callable[[], None]) -> Any:
        timer = (self.now_s + delay_s, run)
        self.timers.append(timer)
        return SimpleNamespace(cancel=lambda: self.timers.remove(timer))

    def _send(self, endpoint: Endpoint, call: OutgoingCall) -> None:
        assert endpoint.link is not None
        assert endpoint.load < endpoint.limit
        model_id = call.request.context.multiplexed_model_id
        if model_id:
            self.pool._models.forget(endpoint.expect_model(model_id))
        endpoint.link._calls[call.call_id] = call
        self.sent.append((endpoint, call))
        self.running.append((endpoint, call))


class Pool:
    """Replicas that are all connected, as WaitingCalls sees them."""

    def __init__(self, count: int, limit: int) -> None:
        self.endpoints = [CountingEndpoint(ReplicaInfo(str(number), "a"), limit) for number in range(count)]
        for endpoint in self.endpoints:
            endpoint.link = CallerLink("r", observer=None)  # type: ignore[arg-type]
            endpoint.link.phase = CallerPhase.READY
        self.all = Locality(self.endpoints)
        self.local_first = (self.all,)
        self._models = ModelHolders()
        self._models.reset(self.endpoints)
        self.split: TrafficSplit | None = None
        self.canary: CanaryCandidates | None = None

    def find(self, name: str) -> Endpoint | None:
        return next((endpoint for endpoint in self.endpoints if endpoint.name == name), None)

    def holders_of(self, model_id: str) -> Any:
        return self._models.of(model_id)

    def announce(self, endpoint: Endpoint, *models: str) -> frozenset[str]:
        assert endpoint.link is not None
        endpoint.link.facts = ReplicaFacts(model_ids=frozenset(models))
        changed = endpoint.note_announcement()
        self._models.forget(changed)
        return changed


class CountingEndpoint(Endpoint):
    """Counts how often anything looks at it."""

    looks = 0

    @property
    def load(self) -> int:
        CountingEndpoint.looks += 1
        return super().load

    def holds(self, model_id: str) -> bool:
        CountingEndpoint.looks += 1
        return super().holds(model_id)
