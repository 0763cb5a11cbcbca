"""What the control loop, its streams and its store cost, as metrics: whether the controller keeps up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from mesh.controller.plan import actions
from mesh.controller.report.publisher import Publisher
from mesh.controller.store.timed_key_value import TimedKeyValue
from mesh.v1 import control_pb2
from mesh.wire.telemetry import COUNTER, GAUGE, Family, Sample


class TurnPart(StrEnum):
    NODES = "nodes"
    """Waiting for the list of nodes."""
    DECIDE = "decide"
    """Proofs, autoscaling and rollbacks, and waiting until they are stored."""
    PLAN = "plan"
    ACT = "act"
    """Beginning the work on replicas and gateways, which goes on beside the loop."""
    PUBLISH = "publish"
    """Status, snapshots and routes."""


class TurnResult(StrEnum):
    DONE = "done"
    FAILED = "failed"


TURNS = Family("mesh_controller_turns_total", COUNTER, "Turns of the control loop.", ("result",))
TURN_SECONDS = Family(
    "mesh_controller_turn_seconds_total", COUNTER, "Time that turns of the control loop took, by part.", ("part",)
)
ACTIONS = Family("mesh_controller_actions_total", COUNTER, "Work that was begun on replicas and gateways.", ("action",))
PUBLISH_AGE = Family(
    "mesh_controller_publish_age_seconds", GAUGE, "Time since snapshots and routes were last brought up to date."
)
STREAMS = Family("mesh_controller_streams", GAUGE, "Open streams of processes to the controller.", ("kind",))
STREAMS_BEHIND = Family(
    "mesh_controller_streams_behind", GAUGE, "Streams to which changes are not written yet: their readers are slow."
)
STORE_CALLS = Family("mesh_controller_store_calls_total", COUNTER, "Requests to the cluster's KV.", ("operation",))
STORE_FAILURES = Family(
    "mesh_controller_store_failures_total", COUNTER, "Requests to the cluster's KV that failed.", ("operation",)
)
STORE_SECONDS = Family(
    "mesh_controller_store_seconds_total", COUNTER, "Time that requests to the cluster's KV took.", ("operation",)
)

_ACTIONS: dict[type[actions.Action], str] = {
    actions.StartReplica: "start_replica",
    actions.ReconfigureReplica: "reconfigure_replica",
    actions.StopReplica: "stop_replica",
    actions.KillReplica: "kill_replica",
    actions.StartGateway: "start_gateway",
    actions.StopGateway: "stop_gateway",
    actions.KillGateway: "kill_gateway",
}
_KINDS = {
    control_pb2.PROCESS_KIND_CALLER: "caller",
    control_pb2.PROCESS_KIND_REPLICA: "replica",
    control_pb2.PROCESS_KIND_GATEWAY: "gateway",
}


class LoopTimes:
    """Durations of the turns of one control loop. On its event loop."""

    def __init__(self, clock: Callable[[], float], stopwatch: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._stopwatch = stopwatch
        self.turned_at_s = clock()
        """When the last turn ended well."""
        self.published_at_s = self.turned_at_s
        self.turns = Counter[TurnResult](dict.fromkeys(TurnResult, 0))
        self.part_s = dict.fromkeys(TurnPart, 0.0)
        self.actions = dict.fromkeys(_ACTIONS.values(), 0)

    def ended(self, result: TurnResult) -> None:
        """A turn has ended."""
        self.turns[result] += 1
        if result is TurnResult.DONE:
            self.turned_at_s = self._clock()

    def began(self, action: actions.Action) -> None:
        """Work has begun on an action."""
        self.actions[_ACTIONS[type(action)]] += 1

    @property
    def publish_age_s(self) -> float:
        return self._clock() - self.published_at_s

    @contextmanager
    def part(self, part: TurnPart) -> Iterator[None]:
        """Count the time of the block as that part of a turn."""
        began_at_s = self._stopwatch()
        try:
            yield
            if part is TurnPart.PUBLISH:
                self.published_at_s = self._clock()
        finally:
            self.part_s[part] += self._stopwatch() - began_at_s


def loop_samples(times: LoopTimes, publisher: Publisher, store: TimedKeyValue) -> Iterator[tuple[Family, list[Sample]]]:
    yield TURNS, [Sample((result,), times.turns[result]) for result in TurnResult]
    yield TURN_SECONDS, [Sample((part,), seconds) for part, seconds in times.part_s.items()]
    yield ACTIONS, [Sample((name,), count) for name, count in times.actions.items()]
    yield PUBLISH_AGE, [Sample((), times.publish_age_s)]
    kinds = Counter(subscriber.hello.kind for subscriber in publisher.subscribers)
    yield STREAMS, [Sample((name,), kinds[kind]) for kind, name in _KINDS.items()]
    yield STREAMS_BEHIND, [Sample((), sum(not each.is_flushed for each in publisher.subscribers))]
    yield STORE_CALLS, [Sample((name,), usage.calls) for name, usage in store.usage.items()]
    yield STORE_FAILURES, [Sample((name,), usage.failures) for name, usage in store.usage.items()]
    yield STORE_SECONDS, [Sample((name,), usage.seconds) for name, usage in store.usage.items()]
