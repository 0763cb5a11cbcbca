"""`mesh.CallOptions`, and `remote_with` of handles."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import re
import threading
from collections.abc import AsyncIterator
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

import mesh as product
from mesh.caller.handle_options import HandleOptions
from mesh.exceptions import DeadlineExceededError
from mesh.handle import DeploymentHandle
from mesh.options.default import DEFAULT
from mesh.testing import FakeHandle
from tests.unit.fakes.small_mesh import SmallMesh, mesh_of
from tests.unit.handle.store import Store, raised, result, value_of
from tests.unit.protos import shop_pb2, shop_pb2_grpc

CallOptions = product.CallOptions
pytestmark = pytest.mark.timeout(60)

ONE_OF_EACH: dict[str, Any] = {
    "multiplexed_model_id": "m",
    "timeout_s": 0.5,
    "idempotent": True,
    "retry": {"attempts": 2},
    "queue_timeout_s": 2,
    "hedge_after_s": "p95",
    "session_id": "s",
    "tenant": "acme",
    "metadata": {"a": "1"},
}
OF_HANDLES_ONLY = {"method_name", "stream", "_prefer_local_routing"}


class Shop(shop_pb2_grpc.ShopServicer):
    async def Price(self, request: Any, context: Any) -> Any:
        tenant = dict(context.invocation_metadata()).get("tenant", "")
        return shop_pb2.Item(name=request.name + tenant, amount=3)

    async def Total(self, requests: Any, context: Any) -> Any:
        return shop_pb2.Item(amount=sum([item.amount async for item in requests]))


def handle() -> DeploymentHandle[Any]:
    return DeploymentHandle("Store", "shop")


def test_every_option_of_a_call_is_one_of_handles() -> None:
    """All but those that choose the method and the kind of response (item 6)."""
    of_calls = {field.name for field in fields(CallOptions) if field.init}
    assert of_calls == set(ONE_OF_EACH) == {field.name for field in fields(HandleOptions)} - OF_HANDLES_ONLY


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_an_option_of_a_call_means_what_it_means_in_options(name: str) -> None:
    """Also where it takes back what the handle says (item 6)."""
    plain = handle().options(idempotent=True, stream=True).spell
    full = handle().options(**ONE_OF_EACH).spell
    given = {name: ONE_OF_EACH[name]}
    assert CallOptions(**given).over(plain.handle_options) == plain.options(**given).handle_options
    without: dict[str, Any] = {name: getattr(HandleOptions(), name)}
    if name != "idempotent":  # which the hedge needs
        assert CallOptions(**without).over(full.handle_options) == full.options(**without).handle_options
    assert CallOptions(**{name: DEFAULT.VALUE}).over(full.handle_options) == full.handle_options


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("multiplexed_model_id", None),
        ("timeout_s", "2"),
        ("idempotent", 1),
        ("retry", {"attempt": 2}),
        ("queue_timeout_s", 0),
        ("hedge_after_s", "p0"),
        ("session_id", "\ud800"),
        ("tenant", 7),
        ("metadata", {"Upper": "case"}),
    ],
)
def test_wrong_values_are_refused_as_options_refuses_them(name: str, value: Any) -> None:
    given: dict[str, Any] = {name: value}
    with pytest.raises((TypeError, ValueError)) as expected:
        handle().options(**given)
    with pytest.raises(expected.type, match=re.escape(str(expected.value))):
        CallOptions(**given)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("timeout", "Did you mean 'timeout_s'?"),
        ("stream", "It is an option of handles: write handle.options(stream=...)."),
        ("method_name", "It is an option of handles: write handle.options(method_name=...)."),
        ("_prefer_local_routing", "It is an option of handles: write handle.options(_prefer_local_routing=...)."),
        ("request_serialization", "It is an option of handles: write handle.options(request_serialization=...)."),
    ],
)
def test_unknown_options_are_refused_with_what_to_write(name: str, advice: str) -> None:
    given: dict[str, Any] = {name: True}
    with pytest.raises(TypeError) as caught:
        CallOptions(**given)
    assert str(caught.value) == f"CallOptions() got an unexpected keyword argument '{name}'. {advice}"


@pytest.mark.parametrize("wrong", [{"timeout_s": 1}, "chien", None, HandleOptions()])
def test_a_call_without_its_options_says_what_to_write(wrong: Any) -> None:
    """Before it asks for a mesh."""
    with pytest.raises(TypeError) as caught:
        handle().translate.remote_with(wrong, "chien")
    assert str(caught.value) == (
        f"remote_with() takes a mesh.CallOptions before the arguments of the method, not {type(wrong).__name__}: write "
        "handle.translate.remote_with(mesh.CallOptions(timeout_s=1.5), ...), or handle.translate.remote(...) for the "
        "handle's options."
    )
    with pytest.raises(TypeError, match=r"write handle\.remote_with\("):
        handle().remote_with(wrong)


def test_a_second_copy_needs_a_call_or_a_handle_that_is_idempotent() -> None:
    hedged = CallOptions(hedge_after_s=0.1)
    with pytest.raises(ValueError, match="it needs idempotent=True"):
        handle().remote_with(hedged)
    with pytest.raises(ValueError, match="it needs idempotent=True"):
        CallOptions(hedge_after_s=0.1, idempotent=False)
    with pytest.raises(ValueError, match="it needs idempotent=True"):
        CallOptions(idempotent=False).over(handle().options(**ONE_OF_EACH).handle_options)
    assert hedged.over(handle().options(idempotent=True).handle_options).hedge_after_s is not None


def test_the_value_is_frozen_and_can_be_compared_copied_pickled_and_replaced() -> None:
    options = CallOptions(**ONE_OF_EACH)
    assert options == CallOptions(**ONE_OF_EACH)
    assert options != CallOptions(timeout_s=0.5)
    assert len({options, CallOptions(**ONE_OF_EACH), CallOptions()}) == 2
    for other in (copy.copy(options), copy.deepcopy(options), pickle.loads(pickle.dumps(options)), replace(options)):
        assert other == options
        assert other.over(HandleOptions()) == options.over(HandleOptions())
    later = replace(options, timeout_s=2)
    assert (later.timeout_s, later.tenant) == (2, "acme")
    assert later.over(HandleOptions()) == replace(options.over(HandleOptions()), timeout_s=2)
    with pytest.raises(FrozenInstanceError):
        options.timeout_s = 2  # type: ignore[misc]


def test_it_shows_what_was_given() -> None:
    assert repr(CallOptions()) == "CallOptions()"
    assert repr(CallOptions(tenant="a", timeout_s=None)) == "CallOptions(timeout_s=None, tenant='a')"


def test_a_mapping_that_changes_later_changes_no_options() -> None:
    metadata = {"a": "1"}
    options = CallOptions(metadata=metadata)
    metadata["a"] = "2"
    assert options.over(HandleOptions()).metadata == (("a", "1"),)


def test_a_call_with_options_makes_no_handle_and_leaves_none(mesh: SmallMesh) -> None:
    """The new handle is what `options` is for (item 6)."""
    called = mesh.handle()
    options = [CallOptions(timeout_s=1000 + number, session_id=f"{number}") for number in range(50)]
    result(called.remote_with(options[0], 0))
    handles, values = count_of(DeploymentHandle), count_of(HandleOptions)
    responses = [called.remote_with(each, number) for number, each in enumerate(options)]
    assert count_of(DeploymentHandle) == handles
    assert [result(response) for response in responses] == list(range(50))
    assert called.handle_options.timeout_s is None
    assert next(called.request_counter.numbers) == 51
    del responses
    assert (count_of(DeploymentHandle), count_of(HandleOptions)) == (handles, values)


def count_of(kind: type) -> int:
    gc.collect()
    return sum(type(each) is kind for each in gc.get_objects())


def test_one_value_serves_many_threads_loops_and_handles(mesh: SmallMesh) -> None:
    """At the same time (items 15, 16)."""
    options = CallOptions(timeout_s=20)
    found: list[int] = []

    async def in_a_loop(start: int) -> None:
        calls = (value_of(mesh.handle().remote_with(options, start + number)) for number in range(20))
        found.extend(await asyncio.gather(*calls))

    def in_a_thread(start: int) -> None:
        asyncio.run(in_a_loop(start))
        found.extend(result(mesh.handle("plain").remote_with(options, start + number)) for number in range(20, 40))

    threads = [threading.Thread(target=in_a_thread, args=(start,)) for start in (0, 40, 80)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(found) == list(range(120))


def test_the_deadline_of_one_call_ends_that_call_only(mesh: SmallMesh, store: Store) -> None:
    called = mesh.handle("block")
    other = called.remote()
    assert isinstance(raised(called.remote_with(CallOptions(timeout_s=0.05))), DeadlineExceededError)
    store.gate.set()
    assert result(other) == "unblocked"


def test_a_call_of_a_grpc_method_has_options_of_its_own() -> None:
    """Its messages travel as such, also those of a request stream (item 19)."""

    async def items() -> AsyncIterator[Any]:
        for amount in (1, 2):
            yield shop_pb2.Item(amount=amount)

    async def total(called: DeploymentHandle[Any]) -> Any:
        return await called.remote_with(CallOptions(timeout_s=20), items())

    with mesh_of(Shop()) as shops:
        price = shops.handle("/mesh.tests.Shop/Price", metadata={"tenant": "acme"})
        globex = CallOptions(metadata={"tenant": "globex"})
        assert result(price.remote_with(globex, shop_pb2.Item(name="pear "))).name == "pear globex"
        assert result(price.remote(shop_pb2.Item(name="pear "))).name == "pear acme"
        assert asyncio.run(total(shops.handle("/mesh.tests.Shop/Total"))).amount == 3


def test_a_fake_handle_takes_them_too() -> None:
    fake = FakeHandle(Store())
    options = CallOptions(timeout_s=20)
    assert result(fake.remote_with(options, 7)) == 7
    assert list(fake.count_plain.options(stream=True).remote_with(options, 3)) == [0, 1, 2]


def test_a_method_s_own_keywords_are_its_own(mesh: SmallMesh) -> None:
    """Even one that is called `options`, as the first parameter has no name."""
    error = raised(mesh.handle().remote_with(CallOptions(), options=1, timeout_s=2))
    assert isinstance(error, TypeError)
    assert "unexpected keyword argument 'options'" in str(error)
