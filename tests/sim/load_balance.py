"""A simulation of load balance: many callers, many replicas, skewed service times, three ways to pick.

`python -m tests.sim.load_balance` prints the table of docs/load-balancing.md. Every caller knows what a real one knows:
its own calls under way, and what each replica said of its load with the last result.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from mesh.routing.choice.locality import Locality
from mesh.routing.choice.picker import pick

MEAN_SERVICE_S = 0.01
SKEW = 1.5
"""Standard deviation of the service time's logarithm: the slowest hundredth takes ten times the mean."""
SLOW_SHARE = 0.1
SLOW_FACTOR = 2.0
"""Number of replicas on slower hosts."""
LIMIT = 10_000
"""High enough never to be reached, so that queues show the effect of the choice."""


@dataclass(frozen=True)
class Case:
    callers: int = 100
    replicas: int = 1000
    utilisation: float = 0.7
    calls: int = 200_000
    seed: int = 1


@dataclass(frozen=True)
class Outcome:
    """Calls at a replica when a call gets there, itself included; seconds from a call to its result."""

    queue_p50: int
    queue_p99: int
    queue_max: int
    latency_p50_s: float
    latency_p99_s: float


@dataclass(slots=True)
class Server:
    """A replica that works on one call at a time, its calls in the order in which they came."""

    speed: float
    queue: deque[tuple[float, Locality[View], View]] = field(default_factory=deque)
    """(when the call came, who calls, the caller's view of this replica), the one being served first."""


@dataclass(slots=True, eq=False)
class View:
    """What one caller believes of one replica; a Candidate of the real picker."""

    server: Server
    limit: int = LIMIT
    weight: float = 1.0
    own: int = 0
    others: int = 0

    @property
    def load(self) -> int:
        return self.own + self.others

    @property
    def model_count(self) -> int:
        return 0


Draw = Callable[[], float]
Policy = Callable[[Locality[View], Draw], View | None]


def at_random(locality: Locality[View], draw: Draw) -> View:
    return locality.candidates[int(draw() * len(locality.candidates))]


def of_two(locality: Locality[View], draw: Draw) -> View | None:
    """Power of two choices on what the caller last heard."""
    return pick(locality.candidates, draw)


def of_the_mesh(locality: Locality[View], draw: Draw) -> View | None:
    return locality.pick(draw)


def perfect(locality: Locality[View], draw: Draw) -> View:
    """Knows every queue at every moment; no real caller does."""
    views = locality.candidates
    start = int(draw() * len(views))
    best = views[start]
    for offset in range(len(views)):
        view = views[(start + offset) % len(views)]
        if not view.server.queue:
            return view
        if len(view.server.queue) < len(best.server.queue):
            best = view
    return best


POLICIES: dict[str, Policy] = {
    "random": at_random,
    "two choices": of_two,
    "the mesh": of_the_mesh,
    "perfect": perfect,
}


def simulate(case: Case, policy: Policy) -> Outcome:
    """Replays exactly: everything random comes from the case's seed."""
    draw = random.Random(case.seed)
    servers = [Server(1 / SLOW_FACTOR if n < SLOW_SHARE * case.replicas else 1.0) for n in range(case.replicas)]
    callers = [Locality(View(server) for server in servers) for _ in range(case.callers)]
    capacity = sum(server.speed for server in servers) / MEAN_SERVICE_S
    pause_s = 1 / (capacity * case.utilisation)
    ends: list[tuple[float, int, Server]] = []
    queues: list[int] = []
    latencies: list[float] = []
    now_s = 0.0

    def begin(server: Server) -> None:
        service_s = draw.lognormvariate(math.log(MEAN_SERVICE_S) - SKEW**2 / 2, SKEW) / server.speed
        heapq.heappush(ends, (now_s + service_s, draw.getrandbits(62), server))

    def end(server: Server) -> None:
        arrived_s, caller, view = server.queue.popleft()
        latencies.append(now_s - arrived_s)
        view.own -= 1
        view.others = len(server.queue) - view.own
        caller.record_load(view)
        if server.queue:
            begin(server)

    for arrival_s in _arrivals(case.calls, pause_s, draw):
        while ends and ends[0][0] <= arrival_s:
            now_s, _, server = heapq.heappop(ends)
            end(server)
        now_s = arrival_s
        caller = callers[int(draw.random() * case.callers)]
        view = policy(caller, draw.random)
        assert view is not None, "the limit is out of reach here"
        view.own += 1
        view.server.queue.append((now_s, caller, view))
        queues.append(len(view.server.queue))
        if len(view.server.queue) == 1:
            begin(view.server)
    return _outcome(queues, latencies)


def _arrivals(count: int, pause_s: float, draw: random.Random) -> Iterator[float]:
    now_s = 0.0
    for _ in range(count):
        now_s += draw.expovariate(1 / pause_s)
        yield now_s


def _outcome(queues: list[int], latencies: list[float]) -> Outcome:
    # The first half fills the empty cluster.
    steady = sorted(queues[len(queues) // 2 :])
    waits = sorted(latencies[len(latencies) // 2 :])
    return Outcome(
        queue_p50=steady[len(steady) // 2],
        queue_p99=steady[len(steady) * 99 // 100],
        queue_max=steady[-1],
        latency_p50_s=waits[len(waits) // 2],
        latency_p99_s=waits[len(waits) * 99 // 100],
    )


CASES = (
    Case(utilisation=0.5),
    Case(utilisation=0.7),
    Case(utilisation=0.9),
    Case(callers=10, replicas=10),
    Case(callers=4, replicas=100),
)


def table(cases: Sequence[Case] = CASES) -> str:
    """As docs/load-balancing.md has it."""
    lines = [
        "| callers x replicas, busy | pick | queue p50 | queue p99 | longest | latency p50, ms | latency p99, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        for name, policy in POLICIES.items():
            result = simulate(case, policy)
            lines.append(
                f"| {case.callers} x {case.replicas}, {case.utilisation:.0%} | {name} | {result.queue_p50}"
                f" | {result.queue_p99} | {result.queue_max} | {result.latency_p50_s * 1000:.1f}"
                f" | {result.latency_p99_s * 1000:.0f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
