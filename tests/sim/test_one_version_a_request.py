"""No request meets two versions while a canary starts, in fake time.

Processes hear of each snapshot after a time of their own: the gateway and each kind of replica decide and choose by
what they have heard, with the product's own rules.
"""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from mesh.link.outgoing_call import CallRequest
from mesh.routing.choice.traffic_split import CallingReplica, TrafficSplit, renewed
from mesh.routing.snapshot import DeploymentKey, Snapshot, read_snapshot
from mesh.settings import settings
from mesh.v1 import control_pb2
from mesh.wire.request_context import RequestContext
from tests.sim.fake_cluster import Faults
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import counts
from tests.sim.shop_canary import run_shop

LOOK_S = 0.05
REQUESTS = 4
"""At each look."""

Calls = dict[str, tuple[str, ...]]
"""What each deployment calls, in this order; the first one is the ingress."""
CHAIN: Calls = {"A": ("B",), "B": ("C",), "C": ()}
SHARED_INGRESS: Calls = {"I": ("A", "B"), "A": (), "B": ()}


@dataclass
class Process:
    """A gateway, or all replicas of one version of a deployment."""

    late_s: float
    """How long after the controller has published a snapshot it hears of it."""
    caller: CallingReplica | None = None
    splits: dict[DeploymentKey, TrafficSplit | None] = field(default_factory=dict)


@dataclass
class Callers:
    mesh: Mesh
    calls: Calls
    dice: random.Random
    processes: dict[tuple[str, str], Process] = field(default_factory=dict)
    """By deployment and version; the gateway has no name."""
    published: list[tuple[float, dict[DeploymentKey, Snapshot]]] = field(default_factory=list)
    """What there was to hear, and when."""
    last_read: dict[DeploymentKey, Snapshot] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    """Requests by the versions that served them."""

    async def call_for(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        ends_at_s = loop.time() + seconds
        self.published.clear()
        while loop.time() < ends_at_s:
            now = {key: changes.newest for key, changes in self.mesh.publisher._snapshots.items()}
            self.published = [*self.published[-100:], (loop.time(), {key: self._read(now[key]) for key in now})]
            for _ in range(REQUESTS):
                versions = self._served(CallRequest("m", None, RequestContext("id")), "", "", next(iter(self.calls)))
                self.seen["".join(sorted({version[-1] for version in versions if version[-1] in "12"}))] += 1
            await asyncio.sleep(LOOK_S)

    def _served(self, request: CallRequest, name: str, version: str, callee: str) -> list[str]:
        """The versions of the replicas that one call comes to, its own calls included."""
        chosen = self._choose(request, name, version, callee)
        served = [chosen]
        for each in self.calls[callee]:
            # Calls share the context of their request.
            served += self._served(request, callee, chosen, each)
        return served

    def _choose(self, request: CallRequest, name: str, version: str, callee: str) -> str:
        process = self._process(name, version)
        key = DeploymentKey("app", callee)
        heard_at_s = asyncio.get_running_loop().time() - process.late_s
        heard = (each[key] for at_s, each in reversed(self.published) if at_s <= heard_at_s and key in each)
        snapshot = next(heard, None) or self.published[0][1][key]
        split = process.splits[key] = renewed(
            process.splits.get(key), snapshot.traffic, self.dice.random, process.caller
        )
        versions = {actor.spec.replica_id: actor.spec.spec.version for actor in self.mesh.cluster.replicas()}
        listed = [versions[each.replica_id] for each in snapshot.replicas if each.replica_id in versions]
        if split is not None:
            split.decide(request)
            is_canary = split.rule.canary_track in request.context.track
            own = [each for each in listed if (each == split.rule.version) == is_canary]
            listed = own or listed
        return self.dice.choice(listed)

    def _read(self, message: control_pb2.DeploymentSnapshot) -> Snapshot:
        key = DeploymentKey(message.deployment.app, message.deployment.name)
        if key not in self.last_read or self.last_read[key].version != message.version:
            snapshot = read_snapshot(message)
            assert snapshot is not None
            self.last_read[key] = snapshot
        return self.last_read[key]

    def _process(self, name: str, version: str) -> Process:
        if (name, version) not in self.processes:
            late_s = self.dice.uniform(0.0, 0.9 * settings().controller.canary_open_delay_s)
            caller = CallingReplica("app", name, version) if name else None
            self.processes[name, version] = Process(late_s, caller)
        return self.processes[name, version]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("calls", [CHAIN, SHARED_INGRESS], ids=["chain", "shared ingress"])
async def test_no_request_meets_two_versions_while_a_canary_starts(calls: Calls, seed: int) -> None:
    """In whatever order its replicas come up and callers hear of them; then it gets its share."""
    mesh = Mesh(seed)
    await mesh.boot()
    stable = {name: f"{name.lower()}{0 if name == 'I' else 1}" for name in calls}
    await run_shop(mesh, stable, 2)
    await mesh.until(lambda: counts(mesh) == dict.fromkeys(stable.values(), 2))
    await asyncio.sleep(5.0)
    callers = Callers(mesh, calls, random.Random(seed))
    await callers.call_for(5.0)
    mesh.cluster.faults = Faults(slow_constructor=0.5)
    canary = {name: f"{name.lower()}{0 if name == 'I' else 2}" for name in calls}
    await run_shop(mesh, canary, 2, 50.0)
    await callers.call_for(50.0)
    assert callers.seen.keys() == {"1", "2"}, callers.seen
    callers.seen.clear()
    await callers.call_for(10.0)
    assert abs(callers.seen["2"] - callers.seen["1"]) <= callers.seen.total() / 20, callers.seen
    await mesh.crash()


async def test_a_canary_that_has_lost_one_of_its_deployments_gets_no_requests_until_that_is_back() -> None:
    """Requests that were decided before may still meet the other version; those that come later do not."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    await run_shop(mesh, {"A": "a1", "B": "b1", "C": "c1"}, 1)
    await mesh.until(lambda: counts(mesh) == {"a1": 1, "b1": 1, "c1": 1})
    await run_shop(mesh, {"A": "a2", "B": "b2", "C": "c2"}, 1, 50.0)
    await mesh.until(lambda: counts(mesh).get("b2") == 1 and not is_closed(mesh))
    mesh.cluster.faults = Faults(slow_constructor=1.0)
    mesh.cluster.end(mesh.cluster.serving("b2")[0])
    await mesh.until(lambda: is_closed(mesh))
    await asyncio.sleep(1.0)
    callers = Callers(mesh, CHAIN, random.Random(1))
    await callers.call_for(5.0)
    assert callers.seen.keys() == {"1"}
    await mesh.until(lambda: not is_closed(mesh))
    await callers.call_for(5.0)
    assert callers.seen.keys() == {"1", "2"}
    await mesh.crash()


def is_closed(mesh: Mesh) -> bool:
    return mesh.loop.status().applications[0].canary.is_closed
