"""A user's module with the type that each part of the public API has. `test_types.py` lets mypy check it.

A `type: ignore` marks what mypy must refuse: in strict mode one that is not needed is an error.
"""

from collections.abc import AsyncIterator
from typing import Any, assert_type

import mesh


class Prices:
    async def price(self, item: str) -> float:
        return 2.5

    async def history(self, item: str) -> AsyncIterator[float]:
        yield 2.5

    @mesh.batch(max_batch_size=8)
    async def taxes(self, prices: list[float]) -> list[int]:
        self.taxes.set_max_batch_size(4)
        return [round(price) for price in prices]

    @mesh.batch
    async def streamed_taxes(self, prices: list[float]) -> AsyncIterator[list[int]]:
        yield [round(price) for price in prices]

    @mesh.batch
    async def differences(self, prices: list[float], costs: list[float]) -> list[float]:
        return [price - cost for price, cost in zip(prices, costs, strict=True)]

    @mesh.multiplexed(max_num_models_per_replica=2)
    async def model(self, model_id: str) -> dict[str, float]:
        return {}

    @mesh.multiplexed
    async def other_model(self, model_id: str) -> list[float]:
        return []


class Shop:
    def __init__(
        self, prices: mesh.DeploymentHandle[Prices], size: int, *, others: list[mesh.DeploymentHandle] | None = None
    ) -> None:
        self.prices = prices

    async def buy(self, item: str) -> float:
        response = self.prices.price.remote(item)
        assert_type(response, mesh.DeploymentResponse[Any])
        price: float = await response
        return price

    async def follow(self, item: str) -> list[float]:
        history = self.prices.history.options(stream=True, timeout_s=3)
        assert_type(history, mesh.DeploymentHandle[Any, mesh.DeploymentResponseGenerator[Any]])
        return [price async for price in history.remote(item)]

    async def typed(self, item: str) -> str:
        response: mesh.DeploymentResponse[str] = self.prices.options(method_name="name").remote(item)
        return await response


@mesh.deployment
async def double(number: int) -> int:
    return 2 * number


@mesh.deployment(num_replicas=2)
def triple(number: int) -> int:
    return 3 * number


@mesh.deployment(num_replicas=2)
@mesh.batch(max_batch_size=8)
async def halve(numbers: list[int]) -> list[float]:
    return [number / 2 for number in numbers]


@mesh.batch
async def add(numbers: list[int], others: list[int]) -> list[int]:
    return [number + other for number, other in zip(numbers, others, strict=True)]


prices = mesh.deployment(Prices)
shop = mesh.deployment(Shop, num_replicas=2)
decorated_later = mesh.deployment(num_replicas=2)(Shop)


def applications(any_deployment: mesh.Deployment) -> list[mesh.Application]:
    shop.bind(prices.bind(), "large")  # type: ignore[arg-type]
    shop.bind(prices.bind())  # type: ignore[call-arg]
    double.bind(2)  # type: ignore[call-arg]
    return [
        shop.bind(prices.bind(), 3),
        shop.options(num_replicas=3).bind(prices.bind(), size=3, others=[prices.bind(), double.bind()]),
        decorated_later.bind(prices.bind(), 3),
        shop.options(Prices).bind(),
        shop.options(triple.func_or_class).bind(),
        triple.bind(),
        halve.bind(),
        any_deployment.bind(1, "2"),
    ]


def options() -> None:
    mesh.deployment(Shop, replicas=2)  # type: ignore[call-overload]
    shop.options(num_replicas=[])  # type: ignore[call-overload]


def running(application: mesh.Application) -> mesh.DeploymentHandle:
    handle = mesh.run(application, name="shop", route_prefix=None)
    assert_type(mesh.run_many([mesh.RunTarget(application)]), list[mesh.DeploymentHandle[Any]])
    assert_type(mesh.get_app_handle("shop"), mesh.DeploymentHandle[Any])
    assert_type(mesh.status().applications["shop"].deployments["Shop"].target_replicas, int)
    handle.remote("pear").result(timeout_s="3")  # type: ignore[arg-type]
    return handle


async def code_behind_deployments(handle: mesh.DeploymentHandle) -> None:
    assert_type(shop.func_or_class, type[Shop])
    assert_type(await shop.func_or_class(handle, 3).buy("pear"), float)
    assert_type(await double.func_or_class(2), int)
    assert_type(triple.func_or_class(2), int)


async def batched_and_multiplexed(prices: Prices) -> None:
    assert_type(await prices.taxes(2.5), int)
    assert_type(prices.streamed_taxes(2.5), AsyncIterator[int])
    assert_type(await prices.differences(2.5, 1.5), Any)
    assert_type(await prices.model("pear"), dict[str, float])
    assert_type(await prices.other_model("pear"), list[float])
    assert_type(await halve.func_or_class(3), float)
    assert_type(await add(1, 2), Any)
    await prices.taxes("cheap")  # type: ignore[arg-type]
    await prices.model(7)  # type: ignore[arg-type]


def options_of_calls(handle: mesh.DeploymentHandle) -> None:
    urgent = mesh.CallOptions(timeout_s=0.5, metadata={"priority": "high"}, retry={"attempts": 2}, hedge_after_s="p95")
    assert_type(handle.price.remote_with(urgent, "pear", currency="EUR"), mesh.DeploymentResponse[Any])
    history = handle.history.options(stream=True)
    assert_type(history.remote_with(urgent, "pear"), mesh.DeploymentResponseGenerator[Any])
    mesh.CallOptions(timeout_s="2")  # type: ignore[arg-type]
    mesh.CallOptions(stream=True)  # type: ignore[call-arg]
    handle.remote_with("pear")  # type: ignore[arg-type]
    urgent.timeout_s = 2  # type: ignore[misc]


def streaming(handle: mesh.DeploymentHandle, stream: bool) -> None:
    assert_type(handle.options(stream=False).remote(), mesh.DeploymentResponse[Any])
    assert_type(handle.options(stream=True).spell.remote("ox"), mesh.DeploymentResponseGenerator[Any])
    assert_type(handle.options(stream=True).options(timeout_s=2).remote(), mesh.DeploymentResponseGenerator[Any])
    assert_type(handle.options(stream=stream).remote(), Any)
    handle.options(timeout="2")  # type: ignore[call-overload]
    for _ in handle.spell.remote("ox"):  # type: ignore[attr-defined]
        pass
