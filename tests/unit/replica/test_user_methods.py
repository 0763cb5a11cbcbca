"""How methods are looked up: what may be called, where it runs, and whether it takes a context."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from mesh.exceptions import MeshException
from mesh.replica.method_codecs import ProtobufCodec
from mesh.replica.user_methods import Kind, Method, MethodTable
from mesh.usercode.served_methods import typed_methods
from tests.unit.protos import shop_pb2_grpc

PRICE = "/mesh.tests.Shop/Price"


class Callable:
    value = 5

    async def __call__(self) -> None: ...

    async def coroutine(self) -> None: ...

    async def async_generator(self) -> AsyncIterator[int]:
        yield 1

    def plain(self) -> None: ...

    def generator(self) -> Iterator[int]:
        yield 1

    def _private(self) -> None: ...


async def function() -> None: ...


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("__call__", Kind.ASYNC),
        ("coroutine", Kind.ASYNC),
        ("async_generator", Kind.ASYNC),
        ("plain", Kind.THREAD),
        ("generator", Kind.THREAD),
    ],
)
def test_async_methods_run_on_the_loop_and_others_in_threads(name: str, kind: Kind) -> None:
    table = MethodTable(Callable(), {})
    assert table.find(name).kind is kind
    assert table.find(name) is table.find(name)


@pytest.mark.parametrize("name", ["nothing", "value", "__init__", "__reduce__", "__class__", ""])
def test_what_is_no_method_is_refused_with_those_there_are(name: str) -> None:
    """Only public callables are listed (item 26)."""
    with pytest.raises(MeshException, match=r"\['__call__', 'async_generator', 'coroutine', 'generator', 'plain'\]"):
        MethodTable(Callable(), {}).find(name)


def test_a_function_has_only_its_call() -> None:
    table = MethodTable(function, {})
    assert table.find("__call__").kind is Kind.ASYNC
    with pytest.raises(MeshException, match=r"\['__call__'\]"):
        table.find("other")


def test_partials_run_where_their_function_does() -> None:
    class Partial:
        method = functools.partial(function)

    assert MethodTable(Partial(), {}).find("method").kind is Kind.ASYNC


def shop(price: Any) -> MethodTable:
    cls = type("Shop", (shop_pb2_grpc.ShopServicer,), {"Price": price})
    return MethodTable(cls(), typed_methods(cls))


@pytest.mark.parametrize(
    ("price", "passed"),
    [
        (lambda self, request: None, ((5,), {})),
        (lambda self, request, context: None, ((5, "context"), {})),
        (lambda self, request, anything=None: None, ((5, "context"), {})),
        (lambda self, *arguments: None, ((5, "context"), {})),
        (lambda self, request, grpc_context=None: None, ((5, "context"), {})),
        (lambda self, request, other=None, grpc_context=None: None, ((5,), {"grpc_context": "context"})),
        (lambda self, request, *, grpc_context: None, ((5,), {"grpc_context": "context"})),
        (lambda self, request, context, /: None, ((5, "context"), {})),
    ],
    ids=["none", "context", "any name", "rest", "grpc_context", "third", "keyword only", "positional only"],
)
def test_typed_methods_get_a_context_in_the_way_they_ask_for_it(price: Any, passed: object) -> None:
    """The second parameter, or that called `grpc_context` (item 217)."""
    method = shop(price).find(PRICE)
    assert isinstance(method.codec, ProtobufCodec)
    assert with_context(method, (5,), {}) == passed


REQUIRED: Any = lambda self, number, flag: None  # noqa: E731


@pytest.mark.parametrize(
    ("price", "args", "kwargs", "passed"),
    [
        (lambda self, number, flag=False: None, (5,), {}, ((5,), {})),
        (lambda self, number, grpc_context=None: None, (5,), {}, ((5,), {})),
        (lambda self, number, *rest: None, (5,), {}, ((5,), {})),
        (REQUIRED, (5,), {}, ((5, "context"), {})),
        (REQUIRED, (5, 6), {}, ((5, 6), {})),
        (REQUIRED, (5,), {"flag": 6}, ((5,), {"flag": 6})),
        (REQUIRED, (), {"number": 5}, ((), {"number": 5, "flag": "context"})),
        (lambda self, number, *, grpc_context: None, (5,), {}, ((5,), {"grpc_context": "context"})),
        (lambda self, number, context, /: None, (), {}, ((), {})),
    ],
)
def test_a_handle_passes_its_arguments_and_a_context_only_where_one_is_missing(
    price: Any, args: tuple[Any, ...], kwargs: dict[str, Any], passed: object
) -> None:
    """Also where a method of a service has that name (D1)."""
    assert with_context(shop(price).find("Price"), args, kwargs) == passed


def with_context(method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    return (args, kwargs) if method.context is None else method.context.fill(args, kwargs, "context")
