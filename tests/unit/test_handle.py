"""Handles over real links: values, errors, streams, cancels and arguments, from threads and loops (items 1–51)."""

import asyncio
import gc
import os
import pickle
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from mesh.context import REQUEST, Request
from mesh.exceptions import (
    BackPressureError,
    CancelReason,
    DeadlineExceededError,
    MeshException,
    RemoteError,
    RequestCancelledError,
    UnserializableError,
)
from mesh.handle import DeploymentHandle
from mesh.settings import settings
from mesh.wire.request_context import RequestContext
from tests.unit.fakes.small_mesh import SmallMesh, mesh_of, on_io, until, until_async

DEADLINE_S = 10.0
pytestmark = pytest.mark.timeout(60)


class OddError(Exception):
    """Cannot be built from its `args`."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"odd {code}")
        self.code = code


class LockedError(Exception):
    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Store:
    """One method of every kind."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.peer: DeploymentHandle[Any] | None = None
        self.started = 0
        self.cancelled = 0
        self.produced = 0
        self.closed = 0

    async def __call__(self, value: Any = None) -> Any:
        return value

    def plain(self, value: Any = None) -> Any:
        return value

    async def hang(self) -> None:
        self.started += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def block(self) -> str:
        self.started += 1
        assert self.gate.wait(DEADLINE_S)
        return "unblocked"

    async def block_the_loop(self) -> str:
        return self.block()

    async def count(self, items: int) -> AsyncIterator[int]:
        try:
            for number in range(items):
                self.produced += 1
                yield number
        finally:
            self.closed += 1

    async def large(self, items: int, item_bytes: int) -> AsyncIterator[bytes]:
        for number in range(items):
            self.produced += 1
            yield bytes([number]) * item_bytes

    def count_plain(self, items: int) -> Iterator[int]:
        try:
            for number in range(items):
                self.produced += 1
                yield number
        finally:
            self.closed += 1

    def count_indirect(self, items: int) -> AsyncIterator[int]:
        """A `def` method that runs in a thread and returns an async generator."""
        return self.count(items)

    def relay(self, items: int) -> Any:
        """Returns the responses of another streaming call."""
        assert self.peer is not None
        return self.peer.options(method_name="count", stream=True).remote(items)

    async def relay_async(self, items: int) -> Any:
        return self.relay(items)

    async def stubborn(self) -> AsyncIterator[int]:
        """Goes on yielding after a cancel."""
        while True:
            try:
                self.produced += 1
                yield 1
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                self.cancelled += 1

    async def fail_after(self, items: int) -> AsyncIterator[int]:
        for number in range(items):
            yield number
        raise ZeroDivisionError("enough")

    async def fail(self, error: str) -> None:
        errors: dict[str, Callable[[], BaseException]] = {
            "odd": lambda: OddError(code=7),
            "locked": LockedError,
            "mute": MuteError,
            "exit": lambda: SystemExit(3),
            "surrogate": lambda: ValueError("no such file: \udcff"),
            "zero": lambda: ZeroDivisionError("none"),
        }
        raise errors[error]()

    async def unpicklable(self) -> Any:
        return threading.Lock()


STREAMS = ("count", "count_plain", "count_indirect")


@pytest.fixture(params=[True, False], ids=["isolated", "inline"])
def mesh(request: pytest.FixtureRequest) -> Iterator[SmallMesh]:
    with mesh_of(Store(), is_isolated=request.param) as mesh:
        yield mesh
        mesh.assert_idle()


@pytest.fixture
def store(mesh: SmallMesh) -> Store:
    target = mesh.replicas[0].target
    assert isinstance(target, Store)
    return target


def result(response: Any) -> Any:
    return response.result(timeout_s=DEADLINE_S)


def raised(response: Any) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - what it is, is what the test looks at
        result(response)
    return caught.value


# ---- Values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["__call__", "plain"])
@pytest.mark.parametrize(
    "value", [None, 7, "text", {"a": [1, 2]}, b"x" * 3_000_000], ids=["none", "int", "str", "dict", "large"]
)
def test_a_value_goes_there_and_back(mesh: SmallMesh, method: str, value: Any) -> None:
    assert result(mesh.handle(method).remote(value)) == value


def test_a_response_can_be_asked_repeatedly_and_from_several_loops(mesh: SmallMesh) -> None:
    """The value is fetched once (items 21, 22)."""
    response = mesh.handle().remote(5)

    async def ask() -> list[int]:
        return list(await asyncio.gather(*(_value(response) for _ in range(5))))

    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.extend(asyncio.run(ask()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert results == [5] * 20
    assert result(response) == 5


async def _value(response: Any) -> Any:
    return await response


def test_many_threads_and_loops_call_at_once(mesh: SmallMesh) -> None:
    """One handle serves all of them (items 15, 16)."""
    handle = mesh.handle()
    results: list[int] = []

    async def from_a_loop(start: int) -> None:
        results.extend(await asyncio.gather(*(_value(handle.remote(start + n)) for n in range(100))))

    def from_a_thread(start: int) -> None:
        results.extend(result(handle.plain.remote(start + n)) for n in range(20))

    threads = [threading.Thread(target=asyncio.run, args=(from_a_loop(n * 1000),)) for n in range(3)]
    threads += [threading.Thread(target=from_a_thread, args=(10_000 + n * 1000,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    expected = [n * 1000 + i for n in range(3) for i in range(100)]
    expected += [10_000 + n * 1000 + i for n in range(3) for i in range(20)]
    assert sorted(results) == sorted(expected)


def test_result_refuses_to_block_a_loop(mesh: SmallMesh) -> None:
    """The response can still be awaited (item 23)."""
    response = mesh.handle().remote(1)

    async def ask() -> None:
        with pytest.raises(RuntimeError, match="Sync methods should not be called from within an `asyncio` event loop"):
            response.result()
        assert await response == 1

    asyncio.run(ask())


def test_a_result_that_is_late_can_still_be_had(mesh: SmallMesh, store: Store) -> None:
    """A timeout does not cancel the call (item 24)."""
    response = mesh.handle("block").remote()
    with pytest.raises(TimeoutError):
        response.result(timeout_s=0.01)
    store.gate.set()
    assert result(response) == "unblocked"


def test_polling_for_a_result_keeps_nothing(mesh: SmallMesh, store: Store) -> None:
    """A timeout leaves no waiter behind (item 24)."""
    response = mesh.handle("block").remote()
    for _ in range(100):
        with pytest.raises(TimeoutError):
            response.result(timeout_s=0)

    async def ask() -> None:
        asking = [asyncio.ensure_future(response._future.wait_shielded()) for _ in range(100)]
        await asyncio.sleep(0)
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    asyncio.run(ask())
    assert not response._future._waiters
    store.gate.set()
    assert result(response) == "unblocked"


def test_a_forked_process_hears_that_it_cannot_use_the_mesh(mesh: SmallMesh, store: Store) -> None:
    """Neither the I/O thread nor gRPC follows a fork: waiting for them would never end."""
    handle = mesh.handle()
    pending = mesh.handle("block").remote()
    attempts: list[Callable[[], Any]] = [
        handle.remote,
        lambda: DeploymentHandle[Any]("New", "shop").remote(),
        lambda: pending.result(timeout_s=DEADLINE_S),
        lambda: asyncio.run(_awaited(pending)),
        pending.cancel,
    ]
    child = os.fork()
    if child == 0:
        signal.alarm(int(DEADLINE_S))
        os._exit(sum(1 << number for number, attempt in enumerate(attempts) if not _is_refused_after_fork(attempt)))
    _, status = os.waitpid(child, 0)
    assert status == 0, "the attempts that hung (a signal) or went through (bits)"
    store.gate.set()
    assert result(pending) == "unblocked"
    assert result(handle.remote(7)) == 7


def _is_refused_after_fork(attempt: Callable[[], Any]) -> bool:
    try:
        attempt()
    except MeshException as error:
        return "was forked" in str(error)
    return False


async def _awaited(response: Any) -> Any:
    return await response


def test_options_make_new_handles_that_share_the_router(mesh: SmallMesh) -> None:
    """The original keeps its options (items 6, 8)."""
    handle = mesh.handle()
    other = handle.options(multiplexed_model_id="m", stream=True).some_method
    assert other._options.method_name == "some_method"
    assert other._options.multiplexed_model_id == "m"
    assert handle._options.multiplexed_model_id == ""
    assert other._router is handle._router
    assert other.request_counter == handle.request_counter


def test_init_comes_once_and_first() -> None:
    """A second `_init`, or one after a use, raises (item 17)."""
    handle: DeploymentHandle[Any] = DeploymentHandle("Store", "shop")
    with pytest.raises(RuntimeError, match="No event loop running"):
        handle._init(_run_router_in_separate_loop=False)
    handle._init(_prefer_local_routing=True)
    assert handle.options(method_name="plain")._options._prefer_local_routing
    with pytest.raises(RuntimeError, match="once"):
        handle._init()
    used: DeploymentHandle[Any] = DeploymentHandle("Store", "shop")
    used.options(stream=True)
    with pytest.raises(RuntimeError, match="before the first"):
        used._init()


def test_handles_can_be_pickled_with_their_options() -> None:
    """The copy connects by itself (item 11)."""
    handle: DeploymentHandle[Any] = DeploymentHandle("Store", "shop").options(method_name="plain")
    copy = pickle.loads(pickle.dumps(handle))
    assert (copy.deployment_name, copy.app_name, copy._options) == ("Store", "shop", handle._options)
    assert not copy.is_initialized
    assert repr(copy) == "DeploymentHandle(deployment='Store')"


# ---- Errors ----------------------------------------------------------------------------------------------------------


def test_user_exceptions_keep_their_type_and_tell_where(mesh: SmallMesh) -> None:
    """The remote traceback begins with user code (item 25)."""
    error = raised(mesh.handle("fail").remote("zero"))
    assert type(error) is ZeroDivisionError
    frames = [line.strip() for line in error.__notes__[0].splitlines() if line.strip().startswith("File")]
    assert "test_handle.py" in frames[0], "the user's code comes first"


@pytest.mark.parametrize("name", ["odd", "locked", "mute", "exit"])
def test_exceptions_that_do_not_travel_arrive_by_name(mesh: SmallMesh, name: str) -> None:
    names = {"odd": "OddError", "locked": "LockedError", "mute": "MuteError", "exit": "SystemExit"}
    error = raised(mesh.handle("fail").remote(name))
    if name == "mute":
        assert isinstance(error, MuteError)
    else:
        assert isinstance(error, RemoteError)
        assert error.type_name == names[name]
    assert result(mesh.handle().remote("still there")) == "still there"


def test_text_that_is_no_utf8_travels_in_errors(mesh: SmallMesh) -> None:
    error = raised(mesh.handle("fail").remote("surrogate"))
    assert isinstance(error, ValueError)


def test_a_result_that_cannot_be_pickled_fails_its_call_only(mesh: SmallMesh) -> None:
    error = raised(mesh.handle("unpicklable").remote())
    assert isinstance(error, UnserializableError)
    assert "result" in str(error)


def test_an_argument_that_cannot_be_pickled_fails_at_the_call_site(mesh: SmallMesh) -> None:
    with pytest.raises(UnserializableError, match="arguments"):
        mesh.handle().remote(threading.Lock())


def test_unknown_methods_name_those_there_are(mesh: SmallMesh) -> None:
    """The error quotes the name that was called (item 26)."""
    error = raised(mesh.handle("nothing").remote())
    assert isinstance(error, MeshException)
    assert "'nothing'" in str(error)
    assert "'plain'" in str(error)


def test_looking_for_methods_runs_no_property() -> None:
    """A property may load a model, or raise (item 26)."""

    class Lazy:
        read = 0

        @property
        def model(self) -> Any:
            Lazy.read += 1
            raise ValueError("not loaded")

        @classmethod
        def of_class(cls) -> None: ...

    with mesh_of(Lazy()) as mesh:
        error = raised(mesh.handle("nothing").remote())
    assert "'of_class'" in str(error)
    assert "'model'" not in str(error)
    assert not Lazy.read


def test_wrong_arguments_are_a_type_error(mesh: SmallMesh) -> None:
    """The error is the one that Python raises (item 27)."""
    assert isinstance(raised(mesh.handle("plain").remote(1, 2, 3)), TypeError)


@pytest.mark.parametrize("method", STREAMS)
def test_a_generator_needs_stream(mesh: SmallMesh, method: str) -> None:
    """The error names the option (item 28)."""
    error = raised(mesh.handle(method).remote(3))
    assert isinstance(error, TypeError)
    assert "stream=True" in str(error)


def test_stream_needs_a_generator(mesh: SmallMesh) -> None:
    """The error comes with the first item (item 44)."""
    with pytest.raises(TypeError, match="did not return a generator"):
        next(mesh.handle("plain", stream=True).remote(3))


def test_calls_that_no_frame_can_carry_fail_alone(mesh: SmallMesh) -> None:
    token = REQUEST.set(Request(RequestContext(route="\udcff")))
    try:
        response = mesh.handle().remote()
    finally:
        REQUEST.reset(token)
    assert isinstance(raised(response), UnserializableError)
    assert result(mesh.handle().remote("still there")) == "still there"


@pytest.mark.parametrize("name", [None, 5, b"plain", ["plain"], "\udcff", "x" * 100_000], ids=str)
@pytest.mark.parametrize("option", ["method_name", "multiplexed_model_id"])
def test_names_that_are_no_text_are_refused_where_they_are_given(mesh: SmallMesh, option: str, name: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=option):
        mesh.handle().options(**{option: name})
    with pytest.raises((TypeError, ValueError), match="deployment_name"):
        DeploymentHandle(name, "app")


@pytest.mark.parametrize(("timeout_s", "error"), [("5", TypeError), (True, TypeError), (float("nan"), ValueError)])
def test_a_timeout_is_a_number_of_seconds(timeout_s: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="timeout_s must be a number of seconds"):
        DeploymentHandle("Store", "shop").options(timeout_s=timeout_s)


def test_a_call_that_cannot_be_made_is_no_child(mesh: SmallMesh) -> None:
    """It leaves nothing behind in its parent (item 38)."""
    parent = Request()
    token = REQUEST.set(parent)
    try:
        with pytest.raises(TypeError):
            mesh.handle().remote(threading.Lock())
    finally:
        REQUEST.reset(token)
    assert not parent.children


@pytest.mark.parametrize("timeout_s", [1e7, 1e12, 1e300, float("inf")])
def test_deadlines_in_the_far_future_are_no_trouble(mesh: SmallMesh, timeout_s: float) -> None:
    assert result(mesh.handle(timeout_s=timeout_s).remote(1)) == 1


def test_an_expired_deadline_ends_the_call_and_the_code(mesh: SmallMesh, store: Store) -> None:
    error = raised(mesh.handle("hang", timeout_s=0.05).remote())
    assert isinstance(error, DeadlineExceededError)
    until(lambda: store.cancelled == store.started, "the user's code to see the cancel")


# ---- Streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["relay", "relay_async"])
def test_the_responses_of_a_streaming_call_may_be_returned(mesh: SmallMesh, store: Store, method: str) -> None:
    """A stream may be relayed as it is (item 42)."""
    store.peer = mesh.handle()
    assert list(mesh.handle(method, stream=True).remote(300)) == list(range(300))


@pytest.mark.parametrize("method", STREAMS)
@pytest.mark.parametrize("items", [0, 1, 1000])
def test_streams_come_in_order_and_whole(mesh: SmallMesh, method: str, items: int) -> None:
    """Both kinds of iteration work, and empty streams end immediately (items 42, 45)."""
    assert list(mesh.handle(method, stream=True).remote(items)) == list(range(items))

    async def read() -> list[int]:
        return [item async for item in mesh.handle(method, stream=True).remote(items)]

    assert asyncio.run(read()) == list(range(items))


@pytest.mark.parametrize("item_bytes", [100_000, 600_000, 3_000_000])
def test_large_items_come_in_order_and_whole(mesh: SmallMesh, item_bytes: int) -> None:
    items = list(mesh.handle("large", stream=True).remote(20, item_bytes))
    assert [item[0] for item in items] == list(range(20))
    assert {len(item) for item in items} == {item_bytes}


def test_consumers_of_one_stream_share_its_items(mesh: SmallMesh) -> None:
    """None of them waits for an item that another has been woken for (item 42)."""
    count = 4 * settings().payload.stream_credits
    stream = mesh.handle("count", stream=True).remote(count)
    taken: list[int] = []

    async def take() -> None:
        async for item in stream:
            taken.append(item)
            await asyncio.sleep(0)

    async def consume() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*(take() for _ in range(3)))

    asyncio.run(consume())
    assert sorted(taken) == list(range(count))
    stream = mesh.handle("count", stream=True).remote(count)
    threads = [threading.Thread(target=lambda: taken.extend(stream)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert sorted(taken) == sorted([*range(count), *range(count)])


def test_an_exception_comes_after_the_items_before_it(mesh: SmallMesh) -> None:
    """Items that were produced are delivered first (item 46)."""
    stream = mesh.handle("fail_after", stream=True).remote(5)
    assert [next(stream) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError):
        next(stream)


def test_an_exhausted_stream_stays_exhausted(mesh: SmallMesh) -> None:
    """Reading on ends again immediately (item 50)."""
    stream = mesh.handle("count", stream=True).remote(1)
    assert list(stream) == [0]
    assert list(stream) == []


@pytest.mark.parametrize("method", STREAMS)
def test_a_slow_consumer_bounds_its_producer(mesh: SmallMesh, store: Store, method: str) -> None:
    stream = mesh.handle(method, stream=True).remote(10_000)
    window = settings().payload.stream_credits
    until(lambda: store.produced > window, "the producer to use its credit")
    # Another stream passes the blocked one, on the same link.
    assert len(list(mesh.handle(method, stream=True).remote(1000))) == 1000
    assert store.produced <= window + 1 + 1000
    assert next(stream) == 0
    stream.cancel()
    until(lambda: store.closed == 2, "both generators to be closed")


@pytest.mark.parametrize("item_bytes", [1_000_000, 20_000_000])
def test_a_slow_consumer_bounds_the_bytes_that_wait_for_it(mesh: SmallMesh, store: Store, item_bytes: int) -> None:
    stream = mesh.handle("large", stream=True).remote(200, item_bytes)
    assert len(next(stream)) == item_bytes
    # Another stream passes: the producer has had its time.
    assert len(list(mesh.handle("count", stream=True).remote(1000))) == 1000
    window_bytes = settings().payload.stream_credits * 64 * 1024
    assert store.produced - 1000 <= window_bytes / item_bytes + 3
    stream.cancel()


@pytest.mark.parametrize("method", STREAMS)
def test_a_generator_that_is_dropped_half_read_stops_its_producer(mesh: SmallMesh, store: Store, method: str) -> None:
    stream = mesh.handle(method, stream=True).remote(10**9)
    assert next(stream) == 0
    del stream
    gc.collect()
    until(lambda: store.closed == 1, "the generator to be closed")


def test_a_cancelled_stream_raises_at_the_next_item(mesh: SmallMesh, store: Store) -> None:
    """The item after the cancel raises immediately (item 48)."""
    stream = mesh.handle("count", stream=True).remote(10**9)
    assert next(stream) == 0
    stream.cancel()
    with pytest.raises(RequestCancelledError):
        next(stream)
    assert stream.cancelled()


def test_a_producer_that_swallows_cancels_is_stopped(mesh: SmallMesh, store: Store) -> None:
    stream = mesh.handle("stubborn", stream=True).remote()
    assert next(stream) == 1
    stream.cancel()
    until(lambda: mesh.replicas[0].is_idle, "the call to end")


# ---- Cancels ---------------------------------------------------------------------------------------------------------


def test_a_cancel_reaches_the_users_code_and_the_caller(mesh: SmallMesh, store: Store) -> None:
    """Cancelling twice is cancelling once (item 36)."""
    response = mesh.handle("hang").remote()
    until(lambda: store.started, "the call to run")
    response.cancel()
    response.cancel()
    assert isinstance(raised(response), RequestCancelledError)
    until(lambda: store.cancelled == 1, "the user's code to see it")


def test_a_cancelled_waiter_gives_up_its_call(mesh: SmallMesh, store: Store) -> None:
    async def wait() -> None:
        waiting = asyncio.create_task(_value(mesh.handle("hang").remote()))
        await until_async(lambda: store.started, "the call to run")
        waiting.cancel()
        await asyncio.wait([waiting])

    asyncio.run(wait())
    until(lambda: store.cancelled == 1, "the user's code to see it")


def test_a_cancel_after_the_end_changes_nothing(mesh: SmallMesh) -> None:
    """The value stays, and `cancelled()` is true (item 39)."""
    response = mesh.handle().remote(3)
    assert result(response) == 3
    response.cancel()
    assert result(response) == 3
    assert response.cancelled()


def test_a_cancel_that_overtakes_the_submission_ends_the_call_once(mesh: SmallMesh, store: Store) -> None:
    """On the I/O thread a cancel acts immediately, while the call is still in the mailbox."""
    made = threading.Event()
    responses: list[Any] = []

    def call() -> None:
        responses.append(mesh.handle("hang").remote())
        made.set()

    async def cancel_first() -> None:
        caller = threading.Thread(target=call)
        caller.start()
        assert made.wait(DEADLINE_S)  # the I/O loop stands still meanwhile
        responses[0].cancel()

    on_io(cancel_first())
    assert isinstance(raised(responses[0]), RequestCancelledError)
    mesh.assert_idle()
    assert store.started == 0


def test_children_are_cancelled_with_their_request_and_forgotten(mesh: SmallMesh, store: Store) -> None:
    """Children that have ended are forgotten too (item 38)."""
    parent = Request(RequestContext("parent"))
    token = REQUEST.set(parent)
    try:
        hanging = [mesh.handle("hang").remote() for _ in range(3)]
        assert result(mesh.handle().remote(1)) == 1
    finally:
        REQUEST.reset(token)
    until(lambda: store.started == 3, "the calls to run")
    assert len(parent.children) == 3
    parent.cancel(CancelReason.CLIENT)
    for response in hanging:
        assert isinstance(raised(response), RequestCancelledError)
    assert not parent.children
    assert hanging[0].request_id == "parent"


def test_a_child_of_a_cancelled_request_is_cancelled_at_once(mesh: SmallMesh) -> None:
    parent = Request()
    parent.cancel(CancelReason.CLIENT)
    token = REQUEST.set(parent)
    try:
        assert isinstance(raised(mesh.handle("hang").remote()), RequestCancelledError)
    finally:
        REQUEST.reset(token)


# ---- Arguments -------------------------------------------------------------------------------------------------------


def test_responses_are_arguments_without_being_awaited(mesh: SmallMesh) -> None:
    """Chains of any depth work (item 29)."""
    handle = mesh.handle()
    first = handle.remote(b"x" * 1_000_000)
    chain: Any = first
    for _ in range(10):
        chain = handle.plain.remote(value=chain)
    assert result(chain) == result(first)


def test_a_failed_argument_fails_the_call_and_spares_its_siblings(mesh: SmallMesh, store: Store) -> None:
    """The caller gets the error of the argument (item 29)."""
    handle = mesh.handle()
    sibling = handle.block.remote()
    failed = handle.fail.remote("zero")

    assert isinstance(raised(handle.remote(sibling, failed)), ZeroDivisionError)
    store.gate.set()
    assert result(sibling) == "unblocked"


def test_the_deadline_counts_while_arguments_are_awaited(mesh: SmallMesh, store: Store) -> None:
    upstream = mesh.handle("hang").remote()
    error = raised(mesh.handle(timeout_s=0.05).remote(upstream))
    assert isinstance(error, DeadlineExceededError)
    upstream.cancel()


def test_a_stream_is_no_argument(mesh: SmallMesh) -> None:
    """The stream can still be read (item 31)."""
    stream = mesh.handle("count", stream=True).remote(1)
    with pytest.raises(RuntimeError, match="cannot be passed to downstream handle calls"):
        mesh.handle().remote(stream)
    assert list(stream) == [0]


def test_a_response_cannot_be_pickled(mesh: SmallMesh) -> None:
    """The error says how to pass it on (item 41)."""
    response = mesh.handle().remote(1)
    with pytest.raises(MeshException, match="top-level argument"):
        pickle.dumps(response)
    assert result(response) == 1


# ---- Limits and the end ----------------------------------------------------------------------------------------------


def test_a_full_queue_drops_calls() -> None:
    with mesh_of(Store(), limit=1, queued_max=1) as mesh:
        store: Any = mesh.replicas[0].target
        running, queued = mesh.handle("block").remote(), mesh.handle("block").remote()
        error = raised(mesh.handle("block").remote())
        assert isinstance(error, BackPressureError)
        store.gate.set()
        assert [result(running), result(queued)] == ["unblocked"] * 2
        mesh.assert_idle()


def test_queued_calls_that_are_cancelled_never_reach_a_replica() -> None:
    """User code never sees them (item 35)."""
    with mesh_of(Store(), limit=1) as mesh:
        store: Any = mesh.replicas[0].target
        running = mesh.handle("block").remote()
        queued = [mesh.handle("hang").remote() for _ in range(20)]
        until(lambda: store.started == 1, "the first call to run")
        for response in queued:
            response.cancel()
        for response in queued:
            assert isinstance(raised(response), RequestCancelledError)
        store.gate.set()
        assert result(running) == "unblocked"
        mesh.assert_idle()
        assert store.started == 1


def test_a_thread_call_that_waits_for_its_thread_can_be_cancelled() -> None:
    with mesh_of(Store(), limit=3) as mesh:
        replica = mesh.replicas[0]
        replica.user_loop.threads._max_workers = 1
        store: Any = replica.target
        running, waiting = mesh.handle("block").remote(), mesh.handle("block").remote()
        until(lambda: replica.ongoing == 2 and store.started == 1, "one call to run and one to wait")
        waiting.cancel()
        until(lambda: replica.ongoing == 1, "the place of the cancelled call")
        store.gate.set()
        assert result(running) == "unblocked"
        mesh.assert_idle()
        assert store.started == 1


def test_a_handle_that_was_shut_down_fails_what_waits() -> None:
    with mesh_of(Store(), limit=1) as mesh:
        store: Any = mesh.replicas[0].target
        running, queued = mesh.handle("hang").remote(), mesh.handle().remote(1)
        until(lambda: store.started == 1, "the first call to run")
        on_io(mesh.router.close())
        assert isinstance(raised(queued), RequestCancelledError)
        assert isinstance(raised(running), MeshException)
        until(lambda: store.cancelled == 1, "the call of the closed link to be cancelled")


def test_user_code_that_blocks_its_loop_delays_no_other_call() -> None:
    with mesh_of(Store(), limit=10) as mesh:
        store: Any = mesh.replicas[0].target
        blocked = mesh.handle("block_the_loop").remote()
        until(lambda: store.started == 1, "the loop to be blocked")
        waiting = mesh.handle().remote("async")
        assert result(mesh.handle("plain").remote("thread")) == "thread"
        waiting.cancel()
        assert isinstance(raised(waiting), RequestCancelledError)
        assert blocked._future.outcome is None
        store.gate.set()
        assert result(blocked) == "unblocked"
        mesh.assert_idle()
