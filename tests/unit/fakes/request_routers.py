"""Request routers of users, for tests: other processes import them from here."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import Any

from mesh.request_router import (
    FIFOMixin,
    LocalityMixin,
    MultiplexMixin,
    PendingRequest,
    ReplicaID,
    ReplicaResult,
    RequestRouter,
    RunningReplica,
)


class ByShard(RequestRouter):
    """The first argument names the replica, by its place among all."""

    def initialize_state(self, **kwargs: Any) -> None:
        self.routed: list[tuple[int, str]] = []
        self.offset = kwargs.get("offset", 0)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest
    ) -> list[list[RunningReplica]]:
        ordered = sorted(candidate_replicas, key=lambda replica: replica.replica_id)
        return [[ordered[(pending_request.args[0] + self.offset) % len(ordered)]]]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: str, result: object = None) -> None:
        self.routed.append((pending_request.args[0], replica_id))
        ROUTED.append((pending_request.args[0], replica_id))


ROUTED: list[tuple[int, str]] = []
"""The calls that ByShard has heard of."""


class Raises(RequestRouter):
    async def choose_replicas(self, candidate_replicas: Any, pending_request: Any) -> Any:
        raise ZeroDivisionError("a mistake")


class Exits(RequestRouter):
    async def choose_replicas(self, candidate_replicas: Any, pending_request: Any) -> Any:
        sys.exit("the mistake that the test is about")


class ExitsAtStart(RequestRouter):
    def initialize_state(self, **kwargs: Any) -> None:
        raise SystemExit(1)


class EndsItsLoop(RequestRouter):
    """A task of its own raises SystemExit, which asyncio lets out of the loop."""

    async def choose_replicas(self, candidate_replicas: Any, pending_request: Any) -> Any:
        task = asyncio.create_task(self._exit())
        await asyncio.wait([task])
        assert isinstance(task.exception(), SystemExit), "if no one asks, asyncio logs it during a later test"
        return [candidate_replicas[:1]]

    async def _exit(self) -> None:
        raise SystemExit(1)


class Hangs(RequestRouter):
    async def choose_replicas(self, candidate_replicas: Any, pending_request: Any) -> Any:
        await asyncio.Event().wait()


class Stuck(RequestRouter):
    """Blocks its thread until the test ends that."""

    gate = threading.Event()

    async def choose_replicas(self, candidate_replicas: Any, pending_request: Any) -> Any:
        self.gate.wait(30)
        return [candidate_replicas]


class Nonsense(RequestRouter):
    async def choose_replicas(self, candidate_replicas: Any, pending_request: Any) -> Any:
        return candidate_replicas


class Blocks(RequestRouter):
    async def choose_replicas(self, candidate_replicas: Any, pending_request: Any) -> Any:
        time.sleep(0.5)  # noqa: ASYNC251  The mistake that the test is about.
        return [candidate_replicas]


class CannotStart(RequestRouter):
    def initialize_state(self, **kwargs: Any) -> None:
        raise ValueError("no model")


class Undecided(RequestRouter):
    """Chooses nothing at first."""

    def initialize_state(self, **kwargs: Any) -> None:
        self.asked = 0

    async def choose_replicas(self, candidate_replicas: Any, pending_request: Any) -> Any:
        await asyncio.sleep(0)
        self.asked += 1
        return [[], candidate_replicas] if self.asked > 2 else []


class NearAndLoaded(LocalityMixin, MultiplexMixin, RequestRouter):
    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest
    ) -> list[list[RunningReplica]]:
        model_id = pending_request.metadata.multiplexed_model_id
        if model_id:
            return self.rank_replicas_via_multiplex(candidate_replicas, model_id)
        return self.rank_replicas_via_locality(candidate_replicas)


class ByOwnFigures(RequestRouter):
    """Only replicas that say that they are open, and whose metadata is right."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest
    ) -> list[list[RunningReplica]]:
        if pending_request.metadata.method_name != "__call__":
            return [candidate_replicas]
        return [
            [
                each
                for each in candidate_replicas
                if each.routing_stats.get("is_open") and each.replica_metadata == {"name": each.replica_id, "asked": 1}
            ]
        ]


class ByMetadata(RequestRouter):
    """The metadata of a gRPC client names the replica, by its place among all."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest
    ) -> list[list[RunningReplica]]:
        ordered = sorted(candidate_replicas, key=lambda replica: replica.replica_id)
        sent = dict(pending_request.metadata.invocation_metadata)
        return [[ordered[int(sent["x-shard"]) % len(ordered)]]]


class LeastThroughput(FIFOMixin, MultiplexMixin, LocalityMixin, RequestRouter):
    """Written as for Ray Serve: of the free replicas with the model or close by, the one with the least throughput."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        if pending_request is not None:
            ASKED_FOR.append(pending_request)
        best: dict[ReplicaID, RunningReplica] = {}
        if pending_request is not None and pending_request.metadata.multiplexed_model_id:
            holders = self.rank_replicas_via_multiplex(
                replicas=candidate_replicas, multiplexed_model_id=pending_request.metadata.multiplexed_model_id
            )[0]
            best |= {each.replica_id: each for each in self.select_available_replicas(candidates=holders)}
        near = self.rank_replicas_via_locality(replicas=candidate_replicas)[0]
        best |= {each.replica_id: each for each in self.select_available_replicas(candidates=near)}
        CHOSEN_FROM.append((set(best.values()), self.select_available_replicas()))
        return [sorted(best.values(), key=lambda each: each.routing_stats.get("throughput", 0))[:1]]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: ReplicaResult) -> None:
        ROUTED_TO.append((replica_id.unique_id, replica_id.deployment_id.name, replica_id.deployment_id.app_name))


CHOSEN_FROM: list[tuple[set[RunningReplica], list[RunningReplica]]] = []
"""What LeastThroughput chose from, and all free replicas."""
ASKED_FOR: list[PendingRequest] = []
"""The calls that LeastThroughput was asked for."""
ROUTED_TO: list[tuple[str, str, str]] = []
"""What LeastThroughput has heard of."""
