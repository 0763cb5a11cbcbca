"""What a caller gets when user code, its arguments or its results are at fault (items 25–28, 143)."""

import threading
from typing import Any

import pytest

import mesh
from mesh.exceptions import MeshException, RemoteError, UnserializableError
from tests.e2e.conftest import Deploy
from tests.e2e.gate import small

Handle = mesh.DeploymentHandle[Any]


class LockedError(Exception):
    """Cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("behind a lock")
        self.lock = threading.Lock()


class CodedError(Exception):
    """Its constructor takes what pickle does not know."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")


class RichError(Exception):
    """Has a constructor of its own and knows how to travel."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} ({code})")
        self.code, self.reason = code, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return RichError, (self.code, self.reason)


@small()
class Faulty:
    async def divide(self, by: int) -> float:
        return 1 / by

    def divide_in_thread(self, by: int) -> float:
        return 1 / by

    async def locked(self) -> None:
        raise LockedError

    async def coded(self) -> None:
        raise CodedError(code=7)

    async def rich(self) -> None:
        raise RichError(7, "seven")

    async def exit(self) -> None:
        raise SystemExit(3)

    async def lock(self) -> threading.Lock:
        return threading.Lock()

    async def takes_one(self, one: int) -> int:
        return one

    async def generator(self) -> Any:
        yield 1

    async def _private(self) -> None: ...


@small()
class Caller:
    def __init__(self, faulty: Handle) -> None:
        self._faulty = faulty

    async def __call__(self, method: str, *args: Any) -> Any:
        return await self._faulty.options(method_name=method).remote(*args)


@pytest.fixture(scope="module")
def caller(deploy: Deploy) -> Handle:
    return deploy(Caller.bind(Faulty.bind()), "errors")


@pytest.fixture
def faulty(caller: Handle) -> Handle:
    return mesh.get_deployment_handle("Faulty", "errors")


@pytest.mark.parametrize("method", ["divide", "divide_in_thread"])
def test_an_exception_arrives_with_its_type_and_its_remote_traceback(faulty: Handle, method: str) -> None:
    """The traceback is a note of the exception (item 25)."""
    with pytest.raises(ZeroDivisionError, match="division by zero") as caught:
        faulty.options(method_name=method).remote(0).result(timeout_s=10)
    assert f"in {method}" in "\n".join(caught.value.__notes__)


def test_an_exception_that_cannot_be_pickled_arrives_as_a_description(faulty: Handle, caller: Handle) -> None:
    with pytest.raises(RemoteError, match="behind a lock") as caught:
        faulty.locked.remote().result(timeout_s=10)
    assert caught.value.type_name == "LockedError"
    assert str(caught.value).count("raise LockedError") == 1
    assert "because it cannot be pickled: TypeError: cannot pickle '_thread.lock' object" in str(caught.value)
    with pytest.raises(RemoteError, match="behind a lock"):
        caller.remote("locked").result(timeout_s=10)


def test_an_exception_whose_constructor_takes_other_arguments_arrives_as_it_was(caller: Handle) -> None:
    """The constructor is not called again, on none of the hops (item 25)."""
    with pytest.raises(CodedError, match="code 7"):
        caller.remote("coded").result(timeout_s=10)


def test_an_exception_that_knows_how_to_travel_keeps_what_it_carries_over_two_hops(caller: Handle) -> None:
    """Attributes survive pickling (item 143)."""
    with pytest.raises(RichError) as caught:
        caller.remote("rich").result(timeout_s=10)
    assert (caught.value.code, caught.value.reason) == (7, "seven")


def test_user_code_that_exits_fails_its_call_and_ends_neither_replica_nor_caller(faulty: Handle) -> None:
    with pytest.raises(RemoteError, match="SystemExit: 3"):
        faulty.exit.remote().result(timeout_s=10)
    assert faulty.divide.remote(2).result(timeout_s=10) == 0.5


def test_a_result_that_cannot_be_pickled_fails_the_call_with_the_reason(faulty: Handle) -> None:
    with pytest.raises(UnserializableError, match=r"result cannot be pickled.*lock"):
        faulty.lock.remote().result(timeout_s=10)


def test_an_argument_that_cannot_be_pickled_fails_where_the_call_is_made(faulty: Handle) -> None:
    with pytest.raises(UnserializableError, match=r"arguments cannot be pickled.*lock"):
        faulty.takes_one.remote(threading.Lock())
    with pytest.raises(TypeError):
        faulty.takes_one.remote(one=threading.Lock())


@pytest.mark.parametrize("method", ["nothing", "_missing", "__init__"])
def test_an_unknown_method_is_named_together_with_the_known_ones(faulty: Handle, method: str) -> None:
    """Private methods are not listed (item 26)."""
    with pytest.raises(MeshException, match=rf"'{method}'.*Available methods: \[.*'divide'.*\]") as caught:
        faulty.options(method_name=method).remote().result(timeout_s=10)
    assert "_private" not in str(caught.value)


def test_wrong_arguments_are_reported_as_python_reports_them(faulty: Handle) -> None:
    """The text is Python's own (item 27)."""
    with pytest.raises(TypeError, match="takes 2 positional arguments but 3 were given"):
        faulty.takes_one.remote(1, 2).result(timeout_s=10)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'one'"):
        faulty.takes_one.remote().result(timeout_s=10)
    with pytest.raises(TypeError, match="unexpected keyword argument 'two'"):
        faulty.takes_one.remote(1, two=2).result(timeout_s=10)


def test_a_generator_needs_a_streaming_call(faulty: Handle) -> None:
    """The error says how to call it (item 28, D2)."""
    advice = r"'generator' returned a generator\. You must use `handle\.options\(stream=True\)` to call generators on"
    with pytest.raises(TypeError, match=advice):
        faulty.generator.remote().result(timeout_s=10)
