"""Calls of certain replicas over real links: broadcasts, and calls in two steps."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.caller.call_future import CallFuture
from mesh.exceptions import (
    BackPressureError,
    DeadlineExceededError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    RequestCancelledError,
)
from mesh.handle import DeploymentHandle
from mesh.routing.snapshot import Snapshot
from tests.unit.fakes.small_mesh import SmallMesh, do_on_io, mesh_of, until, until_async

DEADLINE_S = 30.0
pytestmark = pytest.mark.timeout(60)


class Worker:
    def __init__(self) -> None:
        self.gate = threading.Event()
        self.running = 0
        self.most_running = 0
        self.settings: list[Any] = []

    async def hold(self) -> None:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.to_thread(self.gate.wait, DEADLINE_S)
        finally:
            self.running -= 1

    async def hold_and_fail(self) -> None:
        await self.hold()
        raise ZeroDivisionError("this one")

    async def set(self, value: Any, *, fails_at: int = -1) -> int:
        self.settings.append(value)
        if fails_at == id(self):
            raise ZeroDivisionError("this one")
        return id(self)

    async def who(self) -> int:
        return id(self)

    async def count(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        async for number in numbers:
            yield number


@pytest.fixture
def workers() -> tuple[Worker, ...]:
    return Worker(), Worker(), Worker()


@pytest.fixture
def mesh(workers: tuple[Worker, ...]) -> Iterator[SmallMesh]:
    with mesh_of(*workers, limit=1) as mesh:
        yield mesh
        for worker in workers:
            worker.gate.set()
        mesh.assert_idle()


def ids(workers: tuple[Worker, ...]) -> list[int]:
    return sorted(id(worker) for worker in workers)


# ---- Broadcasts ------------------------------------------------------------------------------------------------------


def test_a_broadcast_reaches_every_replica_also_full_ones(mesh: SmallMesh, workers: tuple[Worker, ...]) -> None:
    """Limits on ongoing and queued calls do not apply (item 5)."""
    mesh.queued_max = 0
    mesh.publish()
    held = [mesh.handle("hold").remote() for _ in workers]
    until(lambda: all(worker.running for worker in workers), "all replicas to be full")
    assert sorted(mesh.handle().broadcast("set", 7).results(timeout_s=DEADLINE_S)) == ids(workers)
    assert sorted(asyncio.run(mesh.handle(stream=True).broadcast("set", value=8).results_async())) == ids(workers)
    assert [worker.settings for worker in workers] == [[7, 8]] * 3
    for worker in workers:
        worker.gate.set()
    for response in held:
        response.result(timeout_s=DEADLINE_S)


def test_a_large_broadcast_waits_for_places_like_other_calls(mesh: SmallMesh, workers: tuple[Worker, ...]) -> None:
    """A full replica takes no large message into memory; it is not sent again and again meanwhile."""
    held = [mesh.handle("hold").remote() for _ in workers]
    until(lambda: all(worker.running for worker in workers), "all replicas to be full")
    broadcast = mesh.handle().broadcast("set", b"x" * 5_000_000)
    until(lambda: mesh.router.counts.rejected == 3, "the replicas to refuse it")
    assert mesh.handle().broadcast("set", 1).results(timeout_s=DEADLINE_S)
    assert mesh.router.counts.rejected == 3
    for worker in workers:
        worker.gate.set()
    assert sorted(broadcast.results(timeout_s=DEADLINE_S)) == ids(workers)
    assert [response.result(timeout_s=DEADLINE_S) for response in held] == [None] * 3


def test_exceptions_of_a_broadcast_are_raised_or_returned(mesh: SmallMesh, workers: tuple[Worker, ...]) -> None:
    fails_at = id(workers[1])
    broadcast = mesh.handle().broadcast("set", 1, fails_at=fails_at)
    with pytest.raises(ZeroDivisionError):
        broadcast.results(timeout_s=DEADLINE_S)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(broadcast.results_async())
    results = broadcast.results(timeout_s=DEADLINE_S, return_exceptions=True)
    assert sorted(each for each in results if isinstance(each, int)) == sorted({*ids(workers)} - {fails_at})
    assert sum(isinstance(each, ZeroDivisionError) for each in results) == 1


def test_a_broadcast_to_a_replica_that_dies_names_it(mesh: SmallMesh, workers: tuple[Worker, ...]) -> None:
    broadcast = mesh.handle().broadcast("hold")
    until(lambda: all(worker.running for worker in workers), "the broadcast to run")
    mesh.replicas[0].kill()
    for worker in workers[1:]:
        worker.gate.set()
    results = broadcast.results(timeout_s=DEADLINE_S, return_exceptions=True)
    assert sorted(type(each).__name__ for each in results) == ["NoneType", "NoneType", "ReplicaUnavailableError"]
    workers[0].gate.set()


def test_a_broadcast_has_limits_and_can_be_cancelled(mesh: SmallMesh, workers: tuple[Worker, ...]) -> None:
    broadcast = mesh.handle().broadcast("hold")
    with pytest.raises(TimeoutError):
        broadcast.results(timeout_s=0.01)
    broadcast.cancel()
    results = broadcast.results(timeout_s=DEADLINE_S, return_exceptions=True)
    assert [type(each) for each in results] == [RequestCancelledError] * 3
    late = mesh.handle(timeout_s=0.1).broadcast("hold").results(timeout_s=DEADLINE_S, return_exceptions=True)
    assert [type(each) for each in late] == [DeadlineExceededError] * 3
    with pytest.raises(TypeError, match="values only"):
        mesh.handle().broadcast("set", mesh.handle("who").remote())


def test_a_broadcast_without_replicas(mesh: SmallMesh) -> None:
    """None runs: no results. None will run: an error."""
    replicas, mesh.replicas = mesh.replicas, []
    mesh.publish()
    assert mesh.handle().broadcast("who").results(timeout_s=DEADLINE_S) == []
    mesh.publish(unavailable="it failed")
    with pytest.raises(DeploymentUnavailableError, match="it failed"):
        mesh.handle().broadcast("who").results(timeout_s=DEADLINE_S)
    mesh.replicas = replicas
    mesh.publish()


# ---- Calls in two steps ----------------------------------------------------------------------------------------------


def test_a_chosen_replica_keeps_a_place_for_its_call(mesh: SmallMesh, workers: tuple[Worker, ...]) -> None:
    """No other call gets it in between (item 146)."""
    handle = mesh.handle()
    with handle.choose_replica() as first, handle.choose_replica() as second, handle.choose_replica() as third:
        chosen = {each.replica_id for each in (first, second, third)}
        assert chosen == {replica.replica_id for replica in mesh.replicas}
        waiting = handle.who.remote()
        until(lambda: mesh.router.queued == 1, "the other call to wait")
        by_id = {replica.replica_id: id(replica.target) for replica in mesh.replicas}
        assert handle.who.dispatch(second).result(timeout_s=DEADLINE_S) == by_id[second.replica_id]
        assert waiting.result(timeout_s=DEADLINE_S) == by_id[second.replica_id]
    assert first.replica_id.deployment_id == handle.deployment_id
    assert {replica.admission.ongoing for replica in mesh.replicas} <= {0, 1}


def test_streams_can_be_dispatched(mesh: SmallMesh) -> None:
    async def call() -> None:
        handle = mesh.handle("count", stream=True)
        async with handle.choose_replica() as chosen:
            response = handle.dispatch(chosen, (number for number in range(300)))
            assert [each async for each in response] == list(range(300))

    asyncio.run(call())


def test_a_dispatched_call_refuses_arguments_that_are_not_there_yet(mesh: SmallMesh) -> None:
    """Its place would be given back before they arrive, and the call run beyond the limit (item 146)."""
    handle = mesh.handle("set")
    pending = mesh.handle("who").remote()
    with handle.choose_replica() as chosen, pytest.raises(TypeError, match="await them before"):
        handle.dispatch(chosen, pending)
    with handle.choose_replica() as chosen, pytest.raises(TypeError, match="await them before"):
        handle.dispatch(chosen, value=pending)
    pending.result(timeout_s=DEADLINE_S)


def test_a_place_that_is_not_used_is_given_back(mesh: SmallMesh) -> None:
    for _ in range(10):
        with mesh.handle().choose_replica():
            pass
    mesh.assert_idle()


def test_a_selection_serves_one_call_of_its_deployment(mesh: SmallMesh) -> None:
    handle = mesh.handle("who")
    with handle.choose_replica() as chosen:
        with pytest.raises(ValueError, match="of that deployment"):
            _handle_of(mesh, "Other").dispatch(chosen)
        handle.dispatch(chosen).result(timeout_s=DEADLINE_S)
        with pytest.raises(RuntimeError, match="dispatched already"):
            handle.dispatch(chosen)
    with handle.choose_replica() as unused:
        pass
    with pytest.raises(RuntimeError, match="has ended"):
        handle.dispatch(unused)


def test_a_choice_waits_for_a_place_within_the_limits_of_the_handle(mesh: SmallMesh) -> None:
    handle = mesh.handle()
    with handle.choose_replica(), handle.choose_replica(), handle.choose_replica():
        with pytest.raises(DeadlineExceededError), handle.options(timeout_s=0.1).choose_replica():
            pass
        mesh.queued_max = 0
        mesh.publish()
        with pytest.raises(BackPressureError), handle.choose_replica():
            pass
    mesh.queued_max = -1
    mesh.publish()


def test_a_cancelled_choice_takes_no_place(mesh: SmallMesh) -> None:
    async def choose() -> None:
        handle = mesh.handle()
        async with handle.choose_replica(), handle.choose_replica(), handle.choose_replica():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05), handle.choose_replica():
                    pass
            await until_async(lambda: not mesh.router.queued, "the queue to be empty")

    asyncio.run(choose())


def test_a_choice_that_is_interrupted_gives_its_place_back(mesh: SmallMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Ctrl-C: no block of `with` follows, whose end would give it back."""
    wait = CallFuture.wait_headers_blocking

    def interrupt(future: CallFuture, timeout_s: float | None) -> None:
        wait(future, timeout_s)
        raise KeyboardInterrupt

    monkeypatch.setattr(CallFuture, "wait_headers_blocking", interrupt)
    with pytest.raises(KeyboardInterrupt), mesh.handle().choose_replica():
        pass
    until(lambda: not any(replica.ongoing for replica in mesh.replicas), "the place to be free")


def test_a_call_for_a_replica_that_is_gone_fails_safely(mesh: SmallMesh) -> None:
    """It has not run, so it may be made again elsewhere (items 165, 166)."""
    handle = mesh.handle("who")
    with handle.choose_replica() as chosen:
        gone = next(each for each in mesh.replicas if each.replica_id == chosen.replica_id)
        mesh.replicas.remove(gone)
        mesh.publish()
        with pytest.raises(ReplicaUnavailableError) as caught:
            handle.dispatch(chosen).result(timeout_s=DEADLINE_S)
        assert not caught.value.maybe_executed
    gone.close()


@pytest.mark.parametrize("kind", ["broadcast", "dispatch"])
def test_a_call_that_a_replica_refuses_which_has_just_been_unlisted_fails_safely(
    mesh: SmallMesh, workers: tuple[Worker, ...], kind: str
) -> None:
    """Its replica drains while the call is on its way: it does not wait for the next snapshot (items 165, 166)."""
    handle = mesh.handle("who")
    with handle.choose_replica() as chosen:
        gone = next(each for each in mesh.replicas if each.replica_id == chosen.replica_id)

        def call_while_it_drains() -> Any:
            gone.admission.close()
            response = handle.broadcast("who") if kind == "broadcast" else handle.dispatch(chosen)
            mesh.router.update(replace(published(mesh), replicas=tuple(each.info for each in mesh.replicas)))
            return response

        mesh.replicas.remove(gone)
        response = do_on_io(call_while_it_drains)
        if kind == "broadcast":
            results = response.results(timeout_s=DEADLINE_S, return_exceptions=True)
            (error,) = [each for each in results if isinstance(each, ReplicaUnavailableError)]
            assert len(results) == 3
        else:
            error = caught(response)
        assert error.replica_id == gone.replica_id
        assert not error.maybe_executed
    gone.close()


def test_a_call_whose_replica_is_unlisted_and_then_dies_fails(mesh: SmallMesh, workers: tuple[Worker, ...]) -> None:
    """Also one that may run twice: no other replica was meant (items 165, 166)."""
    handle = mesh.handle("hold", idempotent=True)
    with handle.choose_replica() as chosen:
        response = handle.dispatch(chosen)
    until(lambda: any(worker.running for worker in workers), "the call to run")
    gone = next(each for each in mesh.replicas if each.replica_id == chosen.replica_id)
    mesh.replicas.remove(gone)
    mesh.publish()
    gone.kill()
    assert caught(response).maybe_executed
    gone.target.gate.set()  # type: ignore[attr-defined]
    gone.close()


def test_a_call_that_fails_at_a_replica_that_was_unlisted_is_not_sent_again(
    mesh: SmallMesh, workers: tuple[Worker, ...]
) -> None:
    """There is no replica left for another attempt: the caller gets the failure itself (items 165, 166)."""
    handle = mesh.handle("hold_and_fail", retry={"attempts": 3, "codes": ["INTERNAL"]})
    with handle.choose_replica() as chosen:
        response = handle.dispatch(chosen)
    until(lambda: any(worker.running for worker in workers), "the call to run")
    gone = next(each for each in mesh.replicas if each.replica_id == chosen.replica_id)
    mesh.replicas.remove(gone)
    mesh.publish()
    gone.target.gate.set()  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError):
        response.result(timeout_s=DEADLINE_S)
    gone.close()


def test_the_blocking_form_refuses_to_block_a_loop(mesh: SmallMesh) -> None:
    async def choose() -> None:
        with pytest.raises(RuntimeError), mesh.handle().choose_replica():
            pass

    asyncio.run(choose())


@given(st.lists(st.sampled_from(["call", "broadcast", "choose", "use", "unused", "cancel"]), max_size=20))
@settings(max_examples=40, deadline=None)
def test_any_mixture_of_calls_leaves_no_place_taken(shared: SmallMesh, steps: list[str]) -> None:
    """However calls, broadcasts and reservations follow each other (item 146)."""

    async def run() -> None:
        handle = shared.handle()
        running: list[asyncio.Task[Any]] = []
        for step in steps:
            match step:
                case "call":
                    running.append(asyncio.ensure_future(_value(handle.who.remote())))
                case "broadcast":
                    running.append(asyncio.ensure_future(handle.broadcast("who").results_async()))
                case "choose" | "use" | "unused":
                    running.append(asyncio.ensure_future(_choose(handle, uses=step != "unused")))
                case _ if running:
                    running[-1].cancel()
                case _:
                    pass
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*running, return_exceptions=True)
        for task in running:
            assert task.cancelled() or task.exception() is None

    asyncio.run(run())
    shared.assert_idle()


@pytest.fixture(scope="module")
def shared() -> Iterator[SmallMesh]:
    with mesh_of(Worker(), Worker(), limit=2) as mesh:
        yield mesh


async def _choose(handle: DeploymentHandle[Any], *, uses: bool) -> None:
    async with handle.choose_replica() as chosen:
        if uses:
            await handle.who.dispatch(chosen)


async def _value(response: Any) -> Any:
    return await response


def caught(response: Any) -> ReplicaUnavailableError:
    with pytest.raises(ReplicaUnavailableError) as error:
        response.result(timeout_s=DEADLINE_S)
    return error.value


def published(mesh: SmallMesh) -> Snapshot:
    snapshot = mesh.router.listing.snapshot
    assert snapshot is not None
    return snapshot


def _handle_of(mesh: SmallMesh, deployment: str) -> DeploymentHandle[Any]:
    handle: DeploymentHandle[Any] = DeploymentHandle(deployment, "shop")
    handle._family.router = mesh.router
    return handle
