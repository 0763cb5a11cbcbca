"""Handles and responses: options, waiting, cancelling, passing on, pickling, threads and loops (items 1–41)."""

import asyncio
import concurrent.futures
import threading
from typing import Any

import pytest
import ray

import mesh
from mesh.context import current_request
from mesh.exceptions import MeshException, RequestCancelledError
from tests.e2e.conftest import Deploy
from tests.e2e.gate import Gate, small
from tests.e2e.waiting import until

Handle = mesh.DeploymentHandle[Any]


@small(max_ongoing_requests=100)
class Echo:
    async def __call__(self, value: Any = None) -> Any:
        return value

    def shout(self, text: str, *, mark: str = "!") -> str:
        return text.upper() + mark

    async def add(self, left: Any, right: Any) -> Any:
        return left + right

    async def fail(self, text: str) -> None:
        raise LookupError(text)

    async def count(self, items: int) -> Any:
        for item in range(items):
            yield item

    async def where(self) -> tuple[str, str, str]:
        context, request = mesh.get_replica_context(), current_request()
        return context.app_name, context.deployment, request.request_id if request else ""


@small(max_ongoing_requests=1)
class Single:
    """One call at a time, which waits at the gate."""

    def __init__(self, gate: Handle) -> None:
        self._gate = gate
        self._begun: list[str] = []

    async def __call__(self, label: str) -> str:
        self._begun.append(label)
        return await self._gate.wait.remote(label)

    async def begun(self) -> list[str]:
        return self._begun


@small(max_ongoing_requests=100)
class Front:
    """Uses handles that came in three ways: bound, as an argument and looked up by name."""

    def __init__(self, echo: Handle, gate: Handle, single: Handle) -> None:
        self._echo = echo

    async def __call__(self, text: str, passed: Handle) -> list[Any]:
        found = mesh.get_deployment_handle("Echo")
        return [await handle.shout.remote(text) for handle in (self._echo, passed, found)]

    async def request_ids(self) -> tuple[str, str]:
        own = current_request()
        return own.request_id if own else "", (await self._echo.where.remote())[2]


@pytest.fixture(scope="module")
def front(deploy: Deploy) -> Handle:
    gate = Gate.bind()
    return deploy(Front.bind(Echo.bind(), gate, Single.bind(gate)), "handles")


@pytest.fixture
def echo(front: Handle) -> Handle:
    return mesh.get_deployment_handle("Echo", "handles")


@pytest.fixture
def gate(front: Handle) -> Handle:
    return mesh.get_deployment_handle("Gate", "handles")


@pytest.fixture
def single(front: Handle) -> Handle:
    return mesh.get_deployment_handle("Single", "handles")


def test_options_make_new_handles_that_share_the_router(echo: Handle) -> None:
    """The original keeps its options (items 2–4, 6–8, 10, 14, C5)."""
    shout = echo.options(method_name="shout")
    assert (echo.deployment_name, echo.app_name) == ("Echo", "handles")
    assert repr(echo) == "DeploymentHandle(deployment='Echo')"
    assert shout.remote("a", mark="?").result(timeout_s=10) == "A?"
    assert echo.shout.remote("b").result(timeout_s=10) == "B!"
    assert shout.options(stream=False).remote("c").result(timeout_s=10) == "C!"
    assert echo.remote("unchanged").result(timeout_s=10) == "unchanged"
    assert shout._router is echo._router is echo.shout._router
    assert shout.request_counter is echo.request_counter
    with pytest.warns(UserWarning, match="use_new_handle_api"):
        echo.options(use_new_handle_api=True)


def test_a_handle_connects_at_its_first_call_and_can_be_shut_down(front: Handle) -> None:
    """Making a handle connects nothing (items 1, 12, 18)."""
    own = mesh.DeploymentHandle("Echo", "handles")
    assert not own.is_initialized
    assert not own.running_replicas_populated()
    assert own.remote(1).result(timeout_s=10) == 1
    assert own.is_initialized
    assert own.running_replicas_populated()
    own.shutdown()
    asyncio.run(mesh.DeploymentHandle("Echo", "handles").shutdown_async())
    assert mesh.DeploymentHandle("Echo", "handles").remote(2).result(timeout_s=10) == 2


def test_looking_a_handle_up_gives_the_same_one_again(echo: Handle, front: Handle) -> None:
    """Unknown names raise (items 127–129)."""
    assert mesh.get_deployment_handle("Echo", "handles") is echo
    assert mesh.get_app_handle("handles").deployment_name == "Front"
    with pytest.raises(MeshException, match=r"Application 'nowhere' does not exist\."):
        mesh.get_app_handle("nowhere")
    with pytest.raises(KeyError, match="Nothing"):
        mesh.get_deployment_handle("Nothing", "handles")
    with pytest.raises(MeshException, match="app_name"):
        mesh.get_deployment_handle("Echo")


def test_a_result_can_be_had_any_number_of_times(echo: Handle) -> None:
    """It is the same object each time (items 21, 22)."""
    response = echo.remote([1])
    assert response.result(timeout_s=10) is response.result(timeout_s=10)

    async def awaited_together() -> list[Any]:
        response = echo.remote([2])
        return await asyncio.gather(*(wait_for(response) for _ in range(3)), wait_for(response))

    first, *others = asyncio.run(awaited_together())
    assert first == [2]
    assert all(other is first for other in others)


async def wait_for(response: Any) -> Any:
    return await response


def test_result_refuses_to_block_a_running_loop(echo: Handle) -> None:
    """So does the sync form of `_to_object_ref` (items 23, 40)."""

    async def block() -> None:
        response = echo.remote(1)
        with pytest.raises(RuntimeError, match="Sync methods should not be called from within an `asyncio` event loop"):
            response.result()
        with pytest.raises(RuntimeError, match="Sync methods should not be called"):
            response._to_object_ref_sync()
        assert await response == 1

    asyncio.run(block())


def test_a_timeout_leaves_the_call_running(gate: Handle) -> None:
    """The result can still be had (item 24)."""
    response = gate.wait.remote("patience")
    with pytest.raises(TimeoutError):
        response.result(timeout_s=0.05)
    gate.open.remote("patience").result(timeout_s=10)
    assert response.result(timeout_s=10) == "patience"


def test_a_call_that_is_cancelled_before_it_was_sent_never_reaches_a_replica(single: Handle, gate: Handle) -> None:
    """Other calls are not affected (items 33–35, 37, 39, C1)."""
    running = single.remote("running")
    until(lambda: "running" in gate.entered.remote().result(timeout_s=10))
    queued = single.remote("queued")
    queued.cancel()
    queued.cancel()
    assert queued.cancelled()
    with pytest.raises(RequestCancelledError) as caught:
        queued.result(timeout_s=10)
    for kind in (asyncio.CancelledError, concurrent.futures.CancelledError, ray.exceptions.TaskCancelledError):
        assert isinstance(caught.value, kind)
    gate.open.remote("running").result(timeout_s=10)
    assert running.result(timeout_s=10) == "running"
    running.cancel()
    assert running.cancelled()
    assert running.result() == "running"
    assert single.begun.remote().result(timeout_s=10) == ["running"]


def test_cancelling_an_executing_call_reaches_its_code_and_no_other(gate: Handle) -> None:
    """User code sees CancelledError (items 36, 37)."""
    doomed, spared = gate.wait.remote("doomed"), gate.wait.remote("spared")
    until(lambda: {"doomed", "spared"} <= set(gate.entered.remote().result(timeout_s=10)))
    doomed.cancel()
    with pytest.raises(RequestCancelledError):
        doomed.result(timeout_s=10)
    until(lambda: "doomed" in gate.cancelled_at_s.remote().result(timeout_s=10))
    gate.open.remote("spared").result(timeout_s=10)
    assert spared.result(timeout_s=10) == "spared"


def test_a_cancelled_task_gives_up_the_call_it_awaits(gate: Handle) -> None:
    async def give_up() -> None:
        awaiting = asyncio.create_task(wait_for(gate.wait.remote("given up")))
        await asyncio.to_thread(until, lambda: "given up" in gate.entered.remote().result(timeout_s=10))
        awaiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await awaiting

    asyncio.run(give_up())
    until(lambda: "given up" in gate.cancelled_at_s.remote().result(timeout_s=10))


def test_responses_are_passed_on_without_awaiting_them(echo: Handle, gate: Handle) -> None:
    """Chains of any depth, and in any order (item 29)."""
    one = echo.remote(1)
    two = echo.add.remote(one, right=one)
    chain = two
    for _ in range(10):
        chain = echo.add.remote(chain, one)
    assert echo.add.remote(chain, two).result(timeout_s=10) == 14
    late = echo.add.remote(gate.wait.remote("late"), "r")
    assert echo.remote("not behind it").result(timeout_s=10) == "not behind it"
    gate.open.remote("late").result(timeout_s=10)
    assert late.result(timeout_s=10) == "later"


def test_references_to_ray_objects_are_passed_on_as_their_values(echo: Handle) -> None:
    """Beside responses (items 29, 32)."""
    assert echo.add.remote(ray.put(20), echo.remote(1)).result(timeout_s=10) == 21
    assert echo.add.remote(left=ray.put("a"), right=ray.put("b")).result(timeout_s=10) == "ab"


def test_a_failed_response_fails_the_call_it_is_passed_to(echo: Handle) -> None:
    with pytest.raises(LookupError, match="upstream"):
        echo.remote(echo.fail.remote("upstream")).result(timeout_s=10)


def test_a_nested_response_is_refused_with_a_reason(echo: Handle) -> None:
    """Streams and pickling are refused too (items 31, 41, C13)."""
    response = echo.remote(1)
    with pytest.raises(MeshException, match="top-level"):
        echo.remote([response])
    with pytest.raises(RuntimeError, match="cannot be passed to downstream handle calls"):
        echo.remote(echo.count.options(stream=True).remote(3))
    assert response.result(timeout_s=10) == 1


def test_a_result_becomes_an_object_ref_when_asked(echo: Handle, gate: Handle) -> None:
    """Waiting for it may time out (item 40, C6)."""
    assert ray.get(echo.remote("kept")._to_object_ref_sync()) == "kept"
    waiting = gate.wait.remote("reference")
    with pytest.raises(TimeoutError, match=r"Timed out resolving to ObjectRef\."):
        waiting._to_object_ref_sync(_timeout_s=0.05)
    waiting.cancel()


def test_items_become_object_refs_one_by_one(echo: Handle) -> None:
    """In a loop and outside of one (item 49, C6)."""
    counting = echo.count.options(stream=True)

    async def refs() -> list[Any]:
        return [ray.get(ref) async for ref in await counting.remote(3)._to_object_ref_gen()]

    assert asyncio.run(refs()) == [0, 1, 2]
    assert [ray.get(ref) for ref in counting.remote(3)._to_object_ref_gen_sync()] == [0, 1, 2]


@ray.remote(num_cpus=0)
def shout_in_task(handle: Handle, text: str) -> str:
    return handle.remote(text).result(timeout_s=20)


@ray.remote(num_cpus=0)
class Shouter:
    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    async def shout(self, text: str) -> str:
        return await self._handle.remote(text)


def test_a_handle_travels_into_deployments(front: Handle, echo: Handle) -> None:
    """Bound, as an argument, or found there by its name (items 11, 128)."""
    assert front.remote("deployment", echo).result(timeout_s=10) == ["DEPLOYMENT!"] * 3


def test_a_handle_travels_into_tasks_and_actors(front: Handle, echo: Handle) -> None:
    """It keeps its options (items 11, 13)."""
    shout = echo.options(method_name="shout")
    assert ray.get(shout_in_task.remote(shout, "task"), timeout=30) == "TASK!"
    actor = Shouter.remote(shout)
    assert ray.get(actor.shout.remote("actor"), timeout=30) == "ACTOR!"
    ray.kill(actor)


def test_user_code_knows_where_it_is_and_whom_it_serves(front: Handle, echo: Handle) -> None:
    """A child call has the request id of its parent (items 13, 130)."""
    response = echo.where.remote()
    assert response.result(timeout_s=10) == ("handles", "Echo", response.request_id)
    own, of_child = front.request_ids.remote().result(timeout_s=10)
    assert own == of_child
    with pytest.raises(MeshException):
        mesh.get_replica_context()


def test_a_handle_works_in_many_threads_and_loops_at_once(echo: Handle) -> None:
    """One handle is shared by all of them (items 15, 16)."""

    def call_in_thread(number: int) -> bool:
        return all(echo.remote(number).result(timeout_s=20) == number for _ in range(20))

    def call_in_loop(number: int) -> bool:
        async def call() -> bool:
            return await asyncio.gather(*(wait_for(echo.remote(number)) for _ in range(20))) == [number] * 20

        return asyncio.run(call())

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = [*pool.map(call_in_thread, range(8)), *pool.map(call_in_loop, range(8))]
    assert all(results)


def test_a_loop_that_user_code_blocks_does_not_hold_up_routing(echo: Handle) -> None:
    """The answer arrives while the loop is blocked (item 15)."""

    async def block_while_calling() -> str:
        response = echo.remote("sent and answered meanwhile")
        answered = threading.Event()
        response._future.when_done(answered.set)
        assert answered.wait(10), "the call waited for the loop that called"
        return await response

    assert asyncio.run(block_while_calling()) == "sent and answered meanwhile"


class Flaky:
    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self) -> int:
        self.calls += 1
        if self.calls < 3:
            raise OSError(f"failure {self.calls}")
        return self.calls


def test_a_call_that_fails_is_sent_again_as_often_as_the_handle_says(deploy: Deploy) -> None:
    """Other handles of the deployment get its first error (item 166)."""
    flaky = deploy(small()(Flaky).bind(), "flaky")
    with pytest.raises(OSError, match="failure 1"):
        flaky.remote().result(timeout_s=20)
    assert flaky.options(retry={"attempts": 2, "codes": ["INTERNAL"]}).remote().result(timeout_s=20) == 3
