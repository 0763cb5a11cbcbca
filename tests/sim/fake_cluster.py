"""A cluster in memory: a Runtime whose actors start slowly, fail, hang, die and find no room, by a seed."""

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from mesh.controller.actors.cluster_runtime import ActorCallError, ActorDiedError, ActorUnreachableError
from mesh.controller.plan.cluster_picture import Node
from mesh.controller.plan.replica_placement import NodeAssignment
from mesh.v1 import control_pb2
from tests.sim.fake_actor import Actor, ApplicationPolicy, Faults, Policy, cpus_of, is_bound, no_policy

T = TypeVar("T")
Work = Callable[[], Coroutine[Any, Any, T]]


class FakeCluster:
    def __init__(self, seed: int, *, cpus: Mapping[str, float] | None = None) -> None:
        """`cpus`: of each node. The first one is the head."""
        self.random = random.Random(seed)
        self.cpus = dict(cpus or {"n1": 1000.0})
        self.head = next(iter(self.cpus))
        self.ends_at_s: dict[str, float] = {}
        """Nodes that are being drained, and when they end."""
        self.faults = Faults()
        self.actors: dict[str, Actor] = {}
        self.starved: dict[str, str] = {}
        """Actors that were killed for want of memory, with Ray's words."""
        self.groups: set[str] = set()
        """Placement groups by name."""
        self._known_groups: set[str] = set()
        """Those that the controller knows: it cannot release others."""
        self.broken_versions: set[str] = set()
        """Versions whose constructors always fail."""
        self.crashing_versions: dict[str, float] = {}
        """Versions whose replicas die after they came up, and after how many seconds."""
        self.cut_off: set[str] = set()
        """Nodes that no message reaches."""
        self._lacking: dict[object, set[str]] = {}
        """Nodes that the last list left out, by who asked for it."""
        self.unready: set[str] = set()
        """Names of replicas whose `check_ready` says that they take no calls."""
        self.refused_configs: set[str] = set()
        """JSON of a `user_config` that `reconfigure` refuses, in a new replica too."""
        self.taken_ports: set[int] = set()
        """HTTP ports on which no gateway can listen."""
        self.policy: Policy = no_policy
        """What policy actors do when they are asked."""
        self.application_policy: ApplicationPolicy = lambda questions: {}
        """What those of applications do."""
        self.policies_spawned = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    # ---- Runtime ---------------------------------------------------------------------------------------------------

    async def spawn_replica(self, name: str, spec: control_pb2.ReplicaSpec, assignment: NodeAssignment) -> None:
        if spec.spec.options.placement_group_bundles:
            await self._delivered(functools.partial(self._create_group, name))
            self._known_groups.add(name)
        await self._delivered(functools.partial(self._spawn, Actor(name, spec, assignment)))

    async def spawn_gateway(self, name: str, spec: control_pb2.GatewaySpec) -> None:
        await self._delivered(functools.partial(self._spawn, Actor(name, spec, NodeAssignment((spec.node_id,)))))

    async def spawn_policy(self, name: str, spec: control_pb2.PolicySpec, actor: control_pb2.ActorOptions) -> None:
        self.policies_spawned += 1
        await self._delivered(functools.partial(self._spawn, Actor(name, spec)))

    async def wait_placed(self, name: str) -> tuple[str, ...]:
        actor = self._find(name)
        await self._while_alive(actor, actor.is_placed.wait())
        return (actor.node_id,)

    async def call(self, name: str, method: str, *arguments: bytes) -> bytes | None:
        actor = self._find(name)
        if actor.node_id in self.cut_off:
            await asyncio.sleep(1.0)
            raise ActorUnreachableError(f"no answer from node {actor.node_id}")
        work = functools.partial(self._run, actor, functools.partial(getattr(self, f"_{method}"), actor, *arguments))
        if self.happens(self.faults.twice):
            self._own(work())
        return await self._delivered(work)

    async def kill(self, name: str) -> None:
        await self._delivered(functools.partial(self._kill, name))

    async def refuses(self, address: str) -> bool:
        """As the ports of a host that has vanished do."""
        node_id = address.partition(":")[0]
        return bool(node_id) and node_id not in self.cpus

    async def actor_names(self) -> list[str]:
        return list(self.actors)

    async def pending_actor_names(self) -> list[str]:
        return [actor.name for actor in self.actors.values() if not actor.is_placed.is_set()]

    async def memory_deaths(self, within_s: float) -> dict[str, str]:
        return self.starved

    async def release(self, name: str) -> None:
        await asyncio.sleep(self.random.uniform(0, 0.05))
        if name in self._known_groups:
            self.groups.discard(name)

    async def placement_group_names(self) -> list[str]:
        self._known_groups |= self.groups
        return sorted(self.groups)

    async def nodes(self, asker: object = None) -> list[Node]:
        if self.happens(self.faults.late_list):
            await asyncio.sleep(self.random.uniform(1.0, 20.0))
        # Of two in a row that lack a node one is right: a controller believes them.
        is_short = not self._lacking.get(asker) and self.happens(self.faults.short_list)
        number = self.random.randint(1, len(self.cpus)) if is_short else 0
        lacking = self._lacking[asker] = set(self.random.sample(sorted(self.cpus), number))
        return [
            Node(
                node_id=node_id,
                is_head=node_id == self.head,
                total={"CPU": cpus},
                available={"CPU": cpus - self.used(node_id)},
                ends_at_s=self.ends_at_s.get(node_id),
            )
            for node_id, cpus in self.cpus.items()
            if node_id not in lacking
        ]

    # ---- What tests do and see -------------------------------------------------------------------------------------

    async def vanish(self, node_id: str, unnoticed_s: float) -> None:
        """A host is gone. Ray lists its actors, which nothing reaches, for that time."""
        del self.cpus[node_id]
        self.cut_off.add(node_id)
        await asyncio.sleep(unnoticed_s)
        self.cut_off.discard(node_id)
        for actor in [each for each in self.actors.values() if each.node_id == node_id]:
            self.end(actor)

    def lose_node(self, node_id: str) -> None:
        """It vanishes with everything on it."""
        del self.cpus[node_id]
        self.ends_at_s.pop(node_id, None)
        for actor in list(self.actors.values()):
            if actor.node_id == node_id:
                self.end(actor)

    def used(self, node_id: str) -> float:
        return sum(cpus_of(actor) for actor in self.actors.values() if actor.node_id == node_id)

    def end(self, actor: Actor) -> None:
        """The process of an actor dies."""
        actor.closed.set()
        if self.actors.get(actor.name) is actor:
            del self.actors[actor.name]

    def serving(self, version: str | None = None) -> list[Actor]:
        """Replicas that would take calls."""
        return [actor for actor in self.replicas() if actor.is_serving and version in (None, actor.spec.spec.version)]

    def replicas(self) -> list[Actor]:
        return [actor for actor in self.actors.values() if isinstance(actor.spec, control_pb2.ReplicaSpec)]

    def policies(self) -> list[Actor]:
        return [actor for actor in self.actors.values() if isinstance(actor.spec, control_pb2.PolicySpec)]

    # ---- Messages --------------------------------------------------------------------------------------------------

    async def _delivered(self, work: Work[T]) -> T:
        """The outcome of work that others do. It is done even when who asked for it does not live to hear of it."""
        if self.happens(self.faults.lost):
            raise ActorUnreachableError("the message was lost")
        delay_s = self.random.uniform(0.5, 5.0) if self.happens(self.faults.late) else 0.0
        answer = await asyncio.shield(self._own(self._later(delay_s, work) if delay_s else work()))
        if self.happens(self.faults.lost):
            raise ActorUnreachableError("the answer was lost")
        return answer

    async def _later(self, delay_s: float, work: Work[T]) -> T:
        await asyncio.sleep(delay_s)
        return await work()

    def happens(self, chance: float) -> bool:
        return chance > 0 and self.random.random() < chance

    def _own(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # the caller may be gone, and then nothing else retrieves it

    # ---- What actors do --------------------------------------------------------------------------------------------

    async def _create_group(self, name: str) -> None:
        self.groups.add(name)

    async def _spawn(self, actor: Actor) -> None:
        await asyncio.sleep(self.random.uniform(0, 0.2))
        if self.happens(self.faults.spawn):
            raise ActorCallError("the cluster is in no mood")
        if actor.name in self.actors:
            raise ActorCallError(f"the name {actor.name} is taken")
        self.actors[actor.name] = actor
        self._own(self._live(actor))

    async def _live(self, actor: Actor) -> None:
        while not actor.closed.is_set():
            if node_id := self._choose(actor):
                actor.node_id = node_id
                await asyncio.sleep(self.random.uniform(0.1, 2.0))
                actor.began_at_s = asyncio.get_running_loop().time()
                actor.is_placed.set()
                return
            await asyncio.sleep(0.1)

    def _choose(self, actor: Actor) -> str:
        """As Ray does: the wanted node; where that has no room any other, unless the actor is bound to it."""
        planned = actor.assignment.node_ids[:1]
        if planned and is_bound(actor) and planned[0] not in self.cpus:
            self.end(actor)
            return ""
        allowed = sorted(self.cpus.keys() - actor.assignment.avoided)
        others = () if planned and is_bound(actor) else self.random.sample(allowed, len(allowed))
        for node_id in (*planned, *others):
            has_room = node_id in self.cpus and self.cpus[node_id] - self.used(node_id) >= cpus_of(actor)
            if has_room and (node_id not in self.ends_at_s or isinstance(actor.spec, control_pb2.GatewaySpec)):
                return node_id
        return ""

    async def _kill(self, name: str) -> None:
        await asyncio.sleep(self.random.uniform(0, 0.1))
        if name in self.actors:
            self.end(self.actors[name])

    async def _run(self, actor: Actor, work: Work[T]) -> T:
        """The outcome of an actor's method. Methods run in processes: before there is one they wait."""

        async def method() -> T:
            await actor.is_placed.wait()
            return await work()

        return await self._while_alive(actor, method())

    async def _while_alive(self, actor: Actor, work: Awaitable[T]) -> T:
        """The outcome of an actor's method, unless the actor ends first."""
        method, end = asyncio.ensure_future(work), asyncio.ensure_future(actor.closed.wait())
        try:
            await asyncio.wait([method, end], return_when=asyncio.FIRST_COMPLETED)
            if method.done():
                return method.result()
            raise ActorDiedError(f"{actor.name} died")
        finally:
            method.cancel()
            end.cancel()

    async def _start(self, actor: Actor) -> bytes:
        """A second start hears the outcome of the first."""
        if isinstance(actor.spec, control_pb2.GatewaySpec):
            spec = actor.spec
            if spec.options.http_port in self.taken_ports:
                raise ActorCallError(f"cannot listen on :{spec.options.http_port}: Address already in use")
            if spec.index and not self._shares_port(spec):
                raise ActorCallError(f"cannot listen on :{spec.options.grpc_port}: Address already in use")
            actor.is_started = True
            return await self._describe(actor)
        if isinstance(actor.spec, control_pb2.PolicySpec):
            await actor.is_placed.wait()
            return b""
        if actor.start is None:
            actor.start = self._own(self._construct(actor))
        await asyncio.shield(actor.start)
        return await self._describe(actor)

    async def _construct(self, actor: Actor) -> None:
        is_slow = self.happens(self.faults.slow_constructor)
        await asyncio.sleep(self.random.uniform(10.0, 40.0) if is_slow else self.random.uniform(0.1, 3.0))
        if actor.spec.spec.version in self.broken_versions or self.happens(self.faults.constructor):
            raise ActorCallError("ValueError: no model")
        self._check_config(actor.spec)
        actor.is_started = True
        if (after_s := self.crashing_versions.get(actor.spec.spec.version)) is not None:
            self._own(self._crash_later(actor, after_s))

    async def _crash_later(self, actor: Actor, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self.end(actor)

    async def _offer_ports(self, actor: Actor) -> bytes:
        return f"/ports/of/{actor.name}".encode()

    async def _decide(self, actor: Actor, question: bytes) -> bytes:
        replicas = await self.policy(actor, control_pb2.PolicyQuestion.FromString(question))
        return control_pb2.PolicyAnswer(replicas=replicas).SerializeToString()

    async def _decide_application(self, actor: Actor, question: bytes) -> bytes:
        asked = control_pb2.ApplicationPolicyQuestion.FromString(question).deployments
        replicas = self.application_policy({each.deployment.name: each for each in asked})
        return control_pb2.ApplicationPolicyAnswer(replicas=replicas).SerializeToString()

    async def _describe(self, actor: Actor) -> bytes:
        spec = actor.spec
        if isinstance(spec, control_pb2.GatewaySpec):
            return control_pb2.GatewayReady(
                gateway_id=spec.gateway_id,
                node_id=spec.node_id,
                index=spec.index,
                revision=spec.revision,
                pid=int(actor.is_started),
                is_draining=actor.is_draining,
            ).SerializeToString()
        return control_pb2.ReplicaReady(
            replica_id=spec.replica_id,
            deployment=spec.deployment,
            version=spec.spec.version,
            config_version=spec.config_version,
            address=f"{actor.node_id}:7000" if actor.is_started else "",
            node_id=actor.node_id,
            is_draining=actor.is_draining,
            spec=spec.spec,
            age_s=asyncio.get_running_loop().time() - actor.began_at_s,
            serving_s=asyncio.get_running_loop().time() - actor.started_at_s if actor.started_at_s is not None else 0.0,
            rejected_config_version=actor.rejected[0],
            rejection=actor.rejected[1],
            not_ready=self.not_ready(actor),
            checks_ready=True,
        ).SerializeToString()

    async def _check_health(self, actor: Actor) -> None:
        if actor.is_draining and isinstance(actor.spec, control_pb2.ReplicaSpec):
            raise ActorCallError("leaving")
        if self.happens(self.faults.sick):
            raise ActorCallError("not feeling well")

    async def _check_ready(self, actor: Actor) -> bytes:
        return self.not_ready(actor).encode()

    def not_ready(self, actor: Actor) -> str:
        """Why the replica takes no calls."""
        return "warming up" if actor.name in self.unready else ""

    async def _reconfigure(self, actor: Actor, spec: bytes) -> None:
        await asyncio.sleep(self.random.uniform(0, 0.5))
        read = control_pb2.ReplicaSpec.FromString(spec)
        try:
            self._check_config(read)
        except ActorCallError as error:
            actor.rejected = read.config_version, str(error)
            raise
        actor.spec = read

    def _check_config(self, spec: control_pb2.ReplicaSpec) -> None:
        if spec.spec.options.user_config_json in self.refused_configs:
            raise ActorCallError("ValueError: bad threshold")

    async def _drain(self, actor: Actor) -> None:
        actor.is_draining = True
        is_hanging = self.happens(self.faults.hang_in_drain)
        await asyncio.sleep(1000.0 if is_hanging else self.random.uniform(0, 2.0))
        while actor.ongoing:  # noqa: ASYNC110 - looking again costs nothing in fake time
            await asyncio.sleep(0.05)

    async def _wait_closed(self, actor: Actor) -> None:
        await asyncio.Event().wait()

    def _find(self, name: str) -> Actor:
        if name not in self.actors:
            raise ActorDiedError(f"{name} does not exist")
        return self.actors[name]

    def _shares_port(self, spec: control_pb2.GatewaySpec) -> bool:
        """Whether a further gateway of a node can listen: beside none, or if the first one's socket is sharable."""
        specs = [each.spec for each in self.actors.values() if each.is_started]
        gateways = [each for each in specs if isinstance(each, control_pb2.GatewaySpec)]
        first = [each for each in gateways if (each.node_id, each.index) == (spec.node_id, 0)]
        return not first or any(each.options.processes > 1 for each in first)
