"""mesh.testing: fake handles execute calls as replicas do, and code outside of a replica gets the context of one."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import Context, copy_context
from typing import Any
from unittest.mock import create_autospec

import grpc
import pytest

import mesh
from mesh.context import ReplicaContext, current_request, in_replica, put_replica_into
from mesh.exceptions import (
    CancelReason,
    DeadlineExceededError,
    GrpcStatusError,
    MeshException,
    RequestCancelledError,
    UnserializableError,
)
from mesh.testing import FakeHandle, grpc_context, replica_context
from tests.unit.fakes.small_mesh import until

DEADLINE_S = 30.0


class Prices:
    """Stands for a deployment, with one method of every kind."""

    def __init__(self) -> None:
        self.started = 0
        self.cancelled = 0
        self.closed = 0
        self.asked: list[list[str]] = []

    async def price(self, item: str, *, discount: float = 0.0) -> float:
        return {"pear": 2.5}[item] - discount

    def thread(self) -> str:
        return threading.current_thread().name

    async def remember(self, items: list[str]) -> list[str]:
        self.asked.append(items)
        return items

    async def history(self, count: int) -> AsyncIterator[int]:
        try:
            for number in range(count):
                yield number
        finally:
            self.closed += 1

    def plain_history(self, count: int) -> Iterator[int]:
        yield from range(count)
        raise KeyError("no more")

    async def hang(self) -> None:
        self.started += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def context(self) -> tuple[str, str]:
        request = current_request()
        assert request is not None
        return request.request_id, mesh.get_multiplexed_model_id()

    async def __call__(self) -> str:
        return "called"


@pytest.fixture
def prices() -> Prices:
    return Prices()


@pytest.fixture
def handle(prices: Prices) -> mesh.DeploymentHandle:
    return FakeHandle(prices)


def test_methods_of_every_kind_are_called_through_a_fake_handle(handle: mesh.DeploymentHandle) -> None:
    """In a loop and outside of one (item 253)."""
    assert handle.price.remote("pear", discount=0.5).result(timeout_s=DEADLINE_S) == 2.0
    assert handle.thread.remote().result(timeout_s=DEADLINE_S).startswith("mesh-fake-handles-def")
    assert handle.remote().result(timeout_s=DEADLINE_S) == "called"

    async def call() -> float:
        price: float = await handle.options(method_name="price").remote("pear")
        return price

    assert asyncio.run(call()) == 2.5


def test_mocks_are_targets_too() -> None:
    prices = create_autospec(Prices, instance=True)
    prices.price.return_value = 3.0
    handle = FakeHandle(prices)
    assert handle.running_replicas_populated()
    assert handle.price.remote("pear", discount=0.5).result(timeout_s=DEADLINE_S) == 3.0
    prices.price.assert_awaited_once_with("pear", discount=0.5)
    prices.price.side_effect = KeyError("plum")
    with pytest.raises(KeyError, match="plum"):
        handle.price.remote("plum").result(timeout_s=DEADLINE_S)


def test_a_function_takes_calls_without_a_method() -> None:
    async def double(number: int) -> int:
        return 2 * number

    assert FakeHandle(double).remote(4).result(timeout_s=DEADLINE_S) == 8


def test_errors_come_back_with_their_type_and_traceback(handle: mesh.DeploymentHandle) -> None:
    """As from a replica (items 25, 26, 253)."""
    with pytest.raises(KeyError) as caught:
        handle.price.remote("plum").result(timeout_s=DEADLINE_S)
    assert "in price" in caught.value.__notes__[0]
    with pytest.raises(MeshException, match=r"'cost'.*price"):
        handle.cost.remote().result(timeout_s=DEADLINE_S)
    with pytest.raises(TypeError, match="missing 1 required"):
        handle.price.remote().result(timeout_s=DEADLINE_S)


def test_what_could_not_travel_to_a_replica_is_refused_here_too(handle: mesh.DeploymentHandle) -> None:
    """Arguments are pickled: the target gets copies (item 253)."""
    with pytest.raises(UnserializableError, match="arguments"):
        handle.price.remote(threading.Lock())


def test_the_target_gets_a_copy_of_the_arguments(handle: mesh.DeploymentHandle, prices: Prices) -> None:
    items = ["pear"]
    response = handle.remember.remote(items)
    items.append("plum")
    assert response.result(timeout_s=DEADLINE_S) == ["pear"] == prices.asked[0]


def test_responses_may_be_arguments(handle: mesh.DeploymentHandle) -> None:
    """Without being awaited (item 29)."""
    first = handle.remember.remote(["pear"])
    assert handle.remember.remote(first).result(timeout_s=DEADLINE_S) == ["pear"]


def test_streams_arrive_in_order_and_stop_with_their_consumer(handle: mesh.DeploymentHandle, prices: Prices) -> None:
    """More items than fit into the window, so credit flows (items 42, 46, 253)."""
    assert list(handle.history.options(stream=True).remote(3000)) == list(range(3000))
    failing = handle.options(stream=True).plain_history.remote(2)
    assert [next(failing), next(failing)] == [0, 1]
    with pytest.raises(KeyError, match="no more"):
        next(failing)

    async def take_two() -> list[int]:
        stream = handle.history.options(stream=True).remote(10_000_000)
        taken = [await anext(stream), await anext(stream)]
        stream.cancel()
        return taken

    assert asyncio.run(take_two()) == [0, 1]
    until(lambda: prices.closed == 2, "the end of the cancelled producer")
    with pytest.raises(TypeError, match="stream=True"):
        handle.history.remote(1).result(timeout_s=DEADLINE_S)


def test_cancels_and_deadlines_reach_the_target(handle: mesh.DeploymentHandle, prices: Prices) -> None:
    """Async methods are cancelled (items 36, 253)."""
    response = handle.hang.remote()
    until(lambda: prices.started == 1, "the call")
    response.cancel()
    with pytest.raises(RequestCancelledError):
        response.result(timeout_s=DEADLINE_S)
    with pytest.raises(DeadlineExceededError):
        handle.hang.options(timeout_s=1.0).remote().result(timeout_s=DEADLINE_S)
    until(lambda: prices.cancelled == 2, "both cancels")


def test_calls_carry_on_the_request_that_is_served(handle: mesh.DeploymentHandle, prices: Prices) -> None:
    """Its id, its deadline and its cancel, but not its model id (items 13, 38, 253)."""
    with replica_context(request_id="r-7", multiplexed_model_id="small", timeout_s=60) as request:
        assert handle.context.remote().result(timeout_s=DEADLINE_S) == ("r-7", "")
        large = handle.context.options(multiplexed_model_id="large")
        assert large.remote().result(timeout_s=DEADLINE_S) == ("r-7", "large")
        response = handle.hang.remote()
        until(lambda: prices.started == 1, "the call")
        request.cancel(CancelReason.CLIENT)
        with pytest.raises(RequestCancelledError):
            response.result(timeout_s=DEADLINE_S)
    until(lambda: prices.cancelled == 1, "the cancel")
    with replica_context(timeout_s=0.0), pytest.raises(DeadlineExceededError):
        handle.hang.remote().result(timeout_s=DEADLINE_S)


def test_the_id_of_a_replica_names_its_deployment() -> None:
    """It is a string that can be sent (item 130, D6)."""
    with replica_context(app_name="shop", deployment="Models", replica_id="m-1"):
        context = mesh.get_replica_context()
    found = pickle.loads(pickle.dumps(context.replica_id))
    assert found == context.replica_tag == "m-1"
    assert (str(found), hash(found), found.unique_id, type(found.unique_id)) == ("m-1", hash("m-1"), "m-1", str)
    assert (found.deployment_id.name, found.deployment_id.app_name) == ("Models", "shop")
    assert found.deployment_id == mesh.DeploymentHandle("Models", "shop").deployment_id


def test_a_fake_handle_stays_in_its_process(handle: mesh.DeploymentHandle) -> None:
    """Unpickled it would be a handle of a deployment that does not exist, and its calls would wait forever."""
    with pytest.raises(MeshException, match="cannot leave the process"):
        pickle.dumps(handle)


class Models:
    def __init__(self) -> None:
        self.deployment = mesh.get_replica_context().deployment
        self.loads: list[str] = []

    @mesh.multiplexed(max_num_models_per_replica=1)
    async def load(self, model_id: str) -> str:
        self.loads.append(model_id)
        return f"model {model_id}"

    async def ask(self) -> str:
        model: str = await self.load(mesh.get_multiplexed_model_id())
        return model


def test_code_runs_as_in_a_replica() -> None:
    """Constructors, loaders of models, and the request (item 254)."""
    with replica_context(app_name="shop", deployment="Models", replica_id="m-1", multiplexed_model_id="small"):
        models = Models()
        assert models.deployment == "Models"
        assert (mesh.get_replica_context().app_name, mesh.get_replica_context().replica_id) == ("shop", "m-1")
        assert asyncio.run(models.ask()) == "model small"
        assert current_request() is not None
    assert not in_replica()
    assert current_request() is None
    with pytest.raises(RuntimeError, match=r"mesh\.testing\.replica_context"):
        asyncio.run(models.load("small"))


def test_a_replica_context_that_ends_in_another_context_is_over() -> None:
    """As one of an async fixture does, whose two parts may run in tasks of their own."""
    replica = replica_context(deployment="Models")
    copy_context().run(replica.__enter__)
    copy_context().run(replica.__exit__, None, None, None)
    assert not in_replica()
    assert current_request() is None


def test_a_replica_context_in_a_local_replica_leaves_the_process_as_it_was() -> None:
    """The process itself is no replica afterwards (item 254)."""

    def in_local_replica() -> None:
        with replica_context(deployment="Models"):
            pass

    context = Context()
    put_replica_into(context, ReplicaContext("shop", "Prices", "p-1"))
    context.run(in_local_replica)
    assert not in_replica()


def test_contexts_nest_and_have_deadlines() -> None:
    """Each call of a test may have a model id and a deadline of its own (item 254)."""
    with replica_context(deployment="Models", multiplexed_model_id="outer", timeout_s=60) as outer:
        assert 59 < (outer.remaining_s or 0) <= 60
        with replica_context(deployment="Others", multiplexed_model_id="inner") as inner:
            assert mesh.get_multiplexed_model_id() == "inner"
            assert inner.remaining_s is None
        assert mesh.get_multiplexed_model_id() == "outer"
        assert mesh.get_replica_context().deployment == "Models"


def test_models_of_a_fake_handle_s_target_are_loaded_and_evicted() -> None:
    """By the model id of each call (item 254)."""
    with replica_context(deployment="Models"):
        models = Models()
        ask = FakeHandle(models).ask
        answers = [ask.options(multiplexed_model_id=each).remote().result(timeout_s=DEADLINE_S) for each in "aabba"]
    assert answers == ["model a", "model a", "model b", "model b", "model a"]
    assert models.loads == ["a", "b", "a"]


def test_batches_need_no_replica() -> None:
    """Concurrent calls of one object share a batch (item 134)."""
    sizes: list[int] = []

    class Squares:
        @mesh.batch(max_batch_size=4, batch_wait_timeout_s=5)
        async def square(self, numbers: list[int]) -> list[int]:
            sizes.append(len(numbers))
            return [number**2 for number in numbers]

    async def four() -> list[int]:
        squares = Squares()
        return await asyncio.gather(*(squares.square(number) for number in range(4)))

    assert asyncio.run(four()) == [0, 1, 4, 9]
    assert sizes == [4]


def test_methods_of_services_get_a_grpc_context() -> None:
    """With metadata and a deadline, and the status that they set (item 255)."""

    class Shop:
        async def Price(self, request: str, context: Any) -> str:
            metadata = dict(context.invocation_metadata())
            context.set_trailing_metadata([("seen-by", metadata["user"])])
            context.set_code(grpc.StatusCode.OK)
            if request == "plum":
                await context.abort(grpc.StatusCode.NOT_FOUND, "no plums")
            return request

    context = grpc_context([("user", "ada")], timeout_s=60)
    assert asyncio.run(Shop().Price("pear", context)) == "pear"
    assert (context.trailing_metadata(), context.code()) == ((("seen-by", "ada"),), grpc.StatusCode.OK)
    assert 59 < context.time_remaining() <= 60
    with pytest.raises(GrpcStatusError, match="no plums") as caught:
        asyncio.run(Shop().Price("plum", context))
    assert caught.value.code is grpc.StatusCode.NOT_FOUND


class Adder:
    async def total(self, numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    def doubled(self, numbers: Iterator[int]) -> Iterator[int]:
        for number in numbers:
            yield 2 * number


def test_fake_handles_stream_requests() -> None:
    """As real ones do (items 5, 253)."""
    handle = FakeHandle(Adder())
    assert handle.total.remote(each for each in range(1000)).result(timeout_s=10) == 499_500
    doubled = handle.doubled.options(stream=True).remote(each for each in range(1000))
    assert list(doubled) == [2 * each for each in range(1000)]
