"""Any order of calls, cancels, timeouts, deaths, drains and half-read streams: each call ends once and leaves nothing.

Real handles, router and links call replicas of this process behind sockets; Hypothesis chooses what happens, and how
far everything else gets in between.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from mesh.context import REQUEST, Request
from mesh.exceptions import (
    BackPressureError,
    CancelReason,
    DeadlineExceededError,
    DeploymentUnavailableError,
    MeshException,
    ReplicaUnavailableError,
    RequestCancelledError,
)
from tests.unit.fakes.small_mesh import DEADLINE_S, SmallMesh, SmallReplica, do_on_io, mesh_of, until
from tests.unit.fakes.watched_calls import watched

pytestmark = pytest.mark.timeout(300)

ITEMS = 40
"""Of a whole stream; more than the credit of a link would need several grants for."""
LIMIT = 2
"""Calls at once per replica: some wait."""
ENDS = (
    ZeroDivisionError,
    RequestCancelledError,
    DeadlineExceededError,
    ReplicaUnavailableError,
    BackPressureError,
    DeploymentUnavailableError,
)
"""How a call may fail here, besides for the failure of an argument."""


class Plays:
    """User code of every kind; what is gated goes on once the test lets it."""

    peer: Any = None
    """The handle of the other deployment: calls of a full one to itself would wait for each other."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    async def echo(self, value: Any) -> Any:
        return value

    def plain(self, value: Any) -> Any:
        return value

    async def gated(self, value: Any) -> Any:
        await self.gate.wait()
        return value

    async def hang(self, value: Any) -> None:
        await asyncio.Event().wait()

    async def fail(self, value: Any) -> None:
        raise ZeroDivisionError(value)

    async def nest(self, value: Any) -> Any:
        return await self.peer.echo.remote(self.peer.gated.remote(value))

    async def fork(self, value: Any) -> None:
        """One child fails while the other hangs, which the task group then ends."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.wait_for_hang(value))
                await self.peer.fail.remote(value)
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def wait_for_hang(self, value: Any) -> None:
        await self.peer.hang.remote(value)

    async def count(self, value: Any) -> AsyncIterator[Any]:
        for number in range(ITEMS):
            yield number, value

    def count_plain(self, value: Any) -> Iterator[Any]:
        for number in range(ITEMS):
            yield number, value

    async def count_gated(self, value: Any) -> AsyncIterator[Any]:
        for number in range(ITEMS):
            if number == ITEMS // 2:
                await self.gate.wait()
            yield number, value

    async def count_and_hang(self, value: Any) -> AsyncIterator[Any]:
        yield 0, value
        await asyncio.Event().wait()


UNARY = ("echo", "plain", "gated", "hang", "fail", "nest", "fork")
STREAMS = ("count", "count_plain", "count_gated", "count_and_hang")
ENDLESS = ("hang", "fork", "count_and_hang")
"""They do not end well on their own."""


LASTING = (*ENDLESS, "gated", "nest", "count_gated")
"""They hold their places until something else happens."""


class Call:
    """One call of the test, and what it may become."""

    def __init__(self, method: str, value: Any, response: Any, has_deadline: bool) -> None:
        self.method = method
        self.value = value
        self.response = response
        self.has_deadline = has_deadline
        self.items: list[Any] = []
        self.tasks: list[asyncio.Task[Any]] = []

    async def read(self, count: int) -> None:
        with contextlib.suppress(StopAsyncIteration, ZeroDivisionError, MeshException):
            for _ in range(count):
                self.items.append(await anext(self.response))

    async def end(self) -> BaseException | None:
        """How it ended; None if well, with everything that it had to give."""
        value, error = self.value, None
        try:
            if self.method in STREAMS:
                self.items += [item async for item in self.response]
            else:
                value = await self.response
        except (ZeroDivisionError, MeshException) as raised:
            error = raised
        assert value == self.value
        assert self.items == [(number, self.value) for number in range(len(self.items))]
        if error is None:
            assert self.method not in ENDLESS
            assert len(self.items) == (ITEMS if self.method in STREAMS else 0)
        else:
            assert isinstance(error, ENDS) or "was not sent: its argument" in str(error)
        return error


class World:
    """Two deployments of two replicas, the calls that were made, and one request that some of them belong to."""

    def __init__(self, mesh: SmallMesh, peer: SmallMesh, is_isolated: bool) -> None:
        self.mesh = mesh
        self.peer = peer
        self.is_isolated = is_isolated
        self.gone: list[SmallReplica] = []
        self.calls: list[Call] = []
        self.parent = Request()
        self._values = iter(range(10_000))
        for replica in mesh.replicas:
            replica.target.peer = peer.handle()  # type: ignore[attr-defined]

    def call(self, method: str, options: dict[str, Any], is_child: bool, argument: int | None) -> None:
        earlier = [each for each in self.calls if each.method in UNARY]
        upstream = earlier[argument % len(earlier)] if argument is not None and earlier else None
        value = upstream.value if upstream is not None else next(self._values)
        if method in STREAMS:
            options = {"stream": True, **{key: options[key] for key in options if key == "timeout_s"}}
        token = REQUEST.set(self.parent if is_child else None)
        try:
            handle = self.mesh.handle(method, **options)
            response = handle.remote(value if upstream is None else upstream.response)
        finally:
            REQUEST.reset(token)
        self.calls.append(Call(method, value, response, "timeout_s" in options))

    def burst(self, method: str, count: int, options: dict[str, Any], is_child: bool) -> None:
        """More calls than there are places: replicas are full, and some wait."""
        for _ in range(count):
            self.call(method, options, is_child, None)

    def cancel(self, number: int) -> None:
        if self.calls:
            self.calls[number % len(self.calls)].response.cancel()

    def give_up(self, number: int) -> None:
        """A task that waits for a call is cancelled, and gives up the call."""
        if self.calls:
            call = self.calls[number % len(self.calls)]
            task = asyncio.ensure_future(call.read(1) if call.method in STREAMS else _awaited(call.response))
            call.tasks.append(task)
            asyncio.get_running_loop().call_soon(task.cancel)

    def read(self, number: int, count: int) -> None:
        streams = [each for each in self.calls if each.method in STREAMS and not each.tasks]
        if streams:
            call = streams[number % len(streams)]
            call.tasks.append(asyncio.ensure_future(call.read(count)))

    def drop(self, number: int) -> None:
        """The test forgets the response: a stream ends then, a unary call goes on."""
        idle = [each for each in self.calls if each.method != "hang" and all(task.done() for task in each.tasks)]
        if idle:
            dropped = idle[number % len(idle)]
            self.calls.remove(dropped)
            dropped.tasks.clear()  # A cancelled one holds, in its traceback, the call that holds it.

    async def expire(self) -> None:
        """Time passes: what has a deadline ends by it, if not before."""
        async with asyncio.timeout(DEADLINE_S):
            for call in self.calls:
                if call.has_deadline:
                    await call.response._future.wait(is_shielded=True)

    def end_parent(self) -> None:
        do_on_io(self.parent.cancel, CancelReason.CLIENT)

    def kill(self, number: int) -> None:
        _, replica = self._taken_out(number)
        if replica is not None:
            replica.kill()

    def drain(self, number: int) -> None:
        mesh, replica = self._taken_out(number)
        if replica is not None:
            do_on_io(replica.servicer.drain)
            mesh.publish()

    def add(self, number: int) -> None:
        mesh = self._mesh(number)
        target = Plays()
        target.peer = self.peer.handle() if mesh is self.mesh else None
        mesh.replicas.append(SmallReplica(target, LIMIT, is_isolated=self.is_isolated))
        mesh.publish()

    def open_gates(self) -> None:
        for replica in (*self.mesh.replicas, *self.peer.replicas, *self.gone):
            replica.user_loop.post(replica.target.gate.set)  # type: ignore[attr-defined]

    def lose(self) -> None:
        """The controller has seen the deaths."""
        for mesh in (self.mesh, self.peer):
            mesh.publish(lost=frozenset(each.replica_id for each in self.gone))

    async def settle(self) -> None:
        """Let everything end that can; then give up what cannot, and see how each call has ended."""
        for number, mesh in enumerate((self.mesh, self.peer)):
            if not mesh.replicas:
                self.add(number)
        self.lose()
        self.open_gates()
        for call in self.calls:
            if call.method in ENDLESS:
                call.response.cancel()
        async with asyncio.timeout(DEADLINE_S):
            for call in self.calls:
                await asyncio.gather(*call.tasks, return_exceptions=True)
                first = await call.end()
                if call.method not in STREAMS:
                    assert type(await call.end()) is type(first), "it has ended in two ways"

    def _mesh(self, number: int) -> SmallMesh:
        return self.peer if number % 2 else self.mesh

    def _taken_out(self, number: int) -> tuple[SmallMesh, SmallReplica | None]:
        """A replica that is no longer one of its deployment, if there is one."""
        mesh = self._mesh(number)
        if not mesh.replicas:
            return mesh, None
        replica = mesh.replicas.pop(number // 2 % len(mesh.replicas))
        self.gone.append(replica)
        return mesh, replica


async def _awaited(response: Any) -> None:
    with contextlib.suppress(ZeroDivisionError, MeshException):
        await response


numbers = st.integers(0, 20)
call_options = st.sampled_from(
    [
        {},
        {},
        {"timeout_s": 0.003},
        {"timeout_s": 0.003},
        {"queue_timeout_s": 0.001},
        {"idempotent": True},
        {"idempotent": True, "hedge_after_s": 0.001},
        {"retry": {"attempts": 3, "codes": ["UNAVAILABLE", "INTERNAL"]}},
        {"session_id": "s"},
        {"multiplexed_model_id": "m"},
    ]
)
calls = st.tuples(
    st.just("call"), st.sampled_from(UNARY + STREAMS), call_options, st.booleans(), st.none() | numbers
)  # fmt: skip
bursts = st.tuples(
    st.just("burst"), st.sampled_from(LASTING), st.integers(2, 3 * LIMIT), call_options, st.booleans()
)  # fmt: skip
events = st.one_of(
    calls,
    calls,
    calls,
    bursts,
    bursts,
    st.tuples(st.just("cancel"), numbers),
    st.tuples(st.just("give_up"), numbers),
    st.tuples(st.just("read"), numbers, st.sampled_from([1, 5, ITEMS])),
    st.tuples(st.just("drop"), numbers),
    st.tuples(st.just("kill"), numbers),
    st.tuples(st.just("drain"), numbers),
    st.tuples(st.just("drain"), numbers),
    st.tuples(st.just("add"), numbers),
    st.just(("expire",)),
    st.sampled_from([("end_parent",), ("lose",), ("open_gates",)]),
)
turns = st.tuples(st.sampled_from([0, 0, 1, 3, 10]), st.booleans())
"""How often the loop of the test goes round between two steps, and whether the I/O loop does so too each time."""
Story = list[tuple[tuple[Any, ...], tuple[int, bool]]]
FORGOTTEN: Story = [
    (("call", "count_and_hang", {}, True, None), (10, True)),
    (("read", 0, 1), (10, True)),
    (("give_up", 0), (10, True)),
    (("drop", 0), (0, True)),
]
"""A stream of another request, so the cancelled reader leaves it alone; what ends it is that the test forgets it."""


@pytest.mark.parametrize("is_isolated", [True, False], ids=["isolated", "inline"])
@settings(
    max_examples=60,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(story=FORGOTTEN, seed=0)
@given(story=st.lists(st.tuples(events, turns), min_size=8, max_size=30), seed=st.integers(0, 2**16))
def test_each_call_ends_once_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, is_isolated: bool, story: Story, seed: int
) -> None:
    """It holds whatever happens when (items 22, 29, 35–39)."""
    with (
        watched(monkeypatch) as watch,
        mesh_of(Plays(), Plays(), limit=LIMIT, is_isolated=is_isolated) as mesh,
        mesh_of(Plays(), Plays(), limit=LIMIT, is_isolated=is_isolated) as peer,
    ):
        for each in (mesh, peer):
            each.router.queue._random = Random(seed).random
        world = World(mesh, peer, is_isolated)
        asyncio.run(perform(world, story))
        for each in (mesh, peer):
            each.assert_idle()
            assert each.router.hedges.watched == 0
            until(lambda router=each.router: not router.counts.collecting, "the arguments of all calls")  # type: ignore[misc]
        for replica in world.gone:
            until(lambda replica=replica: replica.is_idle, f"the calls of {replica.replica_id}")  # type: ignore[misc]
            replica.close()
        assert not world.parent.children
        world.calls.clear()
        until(watch.is_empty, "every call to be forgotten")
    assert watch.ends == [1] * watch.made


async def perform(world: World, story: Story) -> None:
    for (name, *arguments), (rounds, with_io) in story:
        done = getattr(world, name)(*arguments)
        if done is not None:
            await done
        for _ in range(rounds):
            if with_io:
                do_on_io(_pass)
            await asyncio.sleep(0)
    await world.settle()


def _pass() -> None:
    """What was posted to the loop before is done when it comes to this."""
