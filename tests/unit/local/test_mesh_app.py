"""Local applications and the fixture `mesh_app`: whole applications in this process, and nothing left of them."""

from __future__ import annotations

import asyncio
import json
import pickle
import socket
import threading
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from fastapi import FastAPI
from grpc_health.v1 import health_pb2, health_pb2_grpc

import mesh
from mesh.cluster import ray_core
from mesh.context import current_request
from mesh.exceptions import MeshException, ReplicaUnavailableError
from mesh.local.local_run import local_application
from mesh.local.mesh_app import Ports, mesh_apps
from mesh.multiplex.multiplex_decorator import model_registry
from mesh.settings import settings
from mesh.testing import RunMeshApp
from tests.unit.fakes.small_mesh import until
from tests.unit.local.conftest import user_threads
from tests.unit.protos import shop_pb2, shop_pb2_grpc

Handle = mesh.DeploymentHandle[Any]
DEADLINE_S = 30.0

events: list[str] = []
"""What the deployments below have done. They are not copied, so it is the same list for all."""


@pytest.fixture(autouse=True)
def no_events() -> None:
    events.clear()


def wholesale_price() -> float:
    return 2.0


@mesh.deployment
class Prices:
    def __init__(self, currency: dict[str, str]) -> None:
        events.append("prices are here")
        self.currency = currency

    async def price(self, item: str) -> str:
        return f"{item}: {wholesale_price()} {self.currency['sign']}"

    def where(self) -> str:
        return mesh.get_replica_context().deployment

    async def where_in_thread(self) -> str:
        return await asyncio.to_thread(self.where)

    async def hang(self) -> None:
        events.append("hanging")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            events.append("cancelled")
            raise

    async def history(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    def __del__(self) -> None:
        events.append("prices are gone")


@mesh.deployment
async def shout(text: str) -> str:
    return text.upper()


@mesh.deployment(user_config={"greeting": "hello"})
class Front:
    async def __init__(self, prices: Handle, others: dict[str, list[Handle]]) -> None:  # type: ignore[misc]
        self.prices = prices
        self.others = others
        self.first = await prices.price.remote("plum")

    async def reconfigure(self, config: dict[str, str]) -> None:
        self.greeting = config["greeting"]

    async def __call__(self, item: str) -> str:
        shared, shout = self.others["all"]
        text = await shout.remote(self.prices.price.remote(item))
        return f"{self.greeting}, {self.first}, {text}, {await shared.where.remote()}, {self.where()}"

    def where(self) -> str:
        return mesh.get_replica_context().deployment

    async def ids(self) -> tuple[str, str]:
        request = current_request()
        assert request is not None
        return request.request_id, await self.prices.options(method_name="where_in_thread").remote()

    def __del__(self) -> None:
        events.append("the front is gone")


def shop() -> mesh.Application:
    prices = Prices.bind({"sign": "EUR"})
    return Front.bind(prices, {"all": [prices, shout.bind()]})


def test_a_graph_of_deployments_runs_without_ray(mesh_app: RunMeshApp) -> None:
    """With containers of handles, a shared node, a function, an async constructor and `reconfigure` (items 62, 240)."""
    app = mesh_app(shop())
    assert app.handle.remote("pear").result(timeout_s=DEADLINE_S) == (
        "hello, plum: 2.0 EUR, PEAR: 2.0 EUR, Prices, Front"
    )
    assert events == ["prices are here"]
    assert app.handle.ids.remote().result(timeout_s=DEADLINE_S)[1] == "Prices"
    items = app.deployment("Prices").history.options(stream=True).remote(1000)
    assert list(items) == list(range(1000))
    with pytest.raises(KeyError, match="Did you mean 'Prices'"):
        app.deployment("Price")
    app.close()
    assert events == ["prices are here", "the front is gone", "prices are gone"]


def test_what_the_code_uses_can_be_patched(mesh_app: RunMeshApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes are not copied; their arguments are, as on the way to a replica (item 240)."""
    currency = {"sign": "EUR"}
    monkeypatch.setattr(f"{__name__}.wholesale_price", lambda: 7.5)
    handle = mesh_app(Prices.bind(currency)).handle
    currency["sign"] = "USD"
    assert handle.price.remote("pear").result(timeout_s=DEADLINE_S) == "pear: 7.5 EUR"
    with pytest.raises(TypeError, match="arguments bound to Prices cannot be pickled"):
        mesh_app(Prices.bind(threading.Lock()))
    with pytest.raises(TypeError, match=r"Deployment\.bind"):
        mesh_app(Prices)  # type: ignore[arg-type]


def test_a_deployment_that_fails_to_start_leaves_nothing(mesh_app: RunMeshApp) -> None:
    """The error names it and has the user's as its cause (item 66)."""

    @mesh.deployment
    class Broken:
        def __init__(self, prices: Handle) -> None:
            raise LookupError("no shelf")

    with pytest.raises(RuntimeError, match=r"Deployment 'Broken' .* LookupError: no shelf") as caught:
        mesh_app(Broken.bind(Prices.bind({})))
    assert isinstance(caught.value.__cause__, LookupError)
    assert events == ["prices are here", "prices are gone"]
    assert user_threads() == []


def test_the_end_cancels_calls_and_leaves_no_thread(mesh_app: RunMeshApp) -> None:
    """A call that hangs does not delay it (item 256)."""
    app = mesh_app(shop())
    response = app.deployment("Prices").hang.remote()
    until(lambda: "hanging" in events, "the call")
    app.close()
    with pytest.raises(ReplicaUnavailableError):
        response.result(timeout_s=DEADLINE_S)
    assert events.index("cancelled") < events.index("prices are gone")
    assert user_threads() == []
    with pytest.raises(MeshException, match="has ended"):
        app.handle.remote("pear")


class Fatal(BaseException):
    """What no `except Exception` catches."""


@pytest.mark.parametrize("error", [Fatal, asyncio.CancelledError, SystemExit])
def test_the_application_ends_whatever_a_finalizer_raises(mesh_app: RunMeshApp, error: type[BaseException]) -> None:
    """What it calls is deleted too, and no thread is left (item 256)."""

    @mesh.deployment
    class Stubborn:
        def __init__(self, prices: Handle) -> None: ...

        def __del__(self) -> None:
            raise error

    app = mesh_app(Stubborn.bind(Prices.bind({})))
    app.close()
    assert events == ["prices are here", "prices are gone"]
    assert user_threads() == []


def test_the_application_ends_also_where_its_gateway_fails_to() -> None:
    """No thread of it is left (item 256)."""

    def fail() -> None:
        raise OSError("the port stays open")

    with mesh_apps(lambda application: Ports("127.0.0.1:1", "127.0.0.1:2", fail)) as run:
        app = run(Prices.bind({"EUR": "€"}))
        assert app.grpc_address == "127.0.0.1:1"
        with pytest.raises(OSError, match="the port stays open"):
            app.close()
        assert user_threads() == []


def test_run_replaces_the_local_application_of_the_same_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends by `delete` and `shutdown`, which look for no Ray then (items 62, 240)."""
    monkeypatch.setattr(ray_core, "attach_ray", lambda: pytest.fail("looked for a Ray"))
    first = mesh.run(Prices.bind({"sign": "EUR"}), _local_testing_mode=True)
    second = mesh.run(Prices.bind({"sign": "USD"}), _local_testing_mode=True)
    assert second.price.remote("pear").result(timeout_s=DEADLINE_S) == "pear: 2.0 USD"
    assert mesh.get_app_handle("default") is second is mesh.get_deployment_handle("Prices", "default")
    with pytest.raises(MeshException, match="has ended"):
        first.price.remote("pear")
    packed = pickle.dumps(second.price)
    assert pickle.loads(packed).remote("fig").result(timeout_s=DEADLINE_S) == "fig: 2.0 USD"
    mesh.delete("default")
    with pytest.raises(MeshException, match="has ended, or runs in another process"):
        pickle.loads(packed)
    mesh.run(Prices.bind({}), name="other", _local_testing_mode=True)
    mesh.shutdown()
    assert user_threads() == []


def test_objects_of_ray_are_refused_without_ray(mesh_app: RunMeshApp) -> None:
    """Nothing starts a Ray by the way (item 240)."""
    response = mesh_app(Prices.bind({"sign": "EUR"})).handle.price.remote("pear")
    with pytest.raises(RuntimeError, match="need Ray"):
        response._to_object_ref_sync()


class Model:
    def __init__(self, name: str) -> None:
        self.name = name

    async def __del__(self) -> None:
        events.append(f"{self.name} unloaded")


class Models:
    @mesh.multiplexed(max_num_models_per_replica=1)
    async def load(self, model_id: str) -> Model:
        return Model(f"{mesh.get_replica_context().deployment}/{model_id}")

    async def __call__(self) -> str:
        model: Model = await self.load(mesh.get_multiplexed_model_id())
        return model.name

    @mesh.batch(max_batch_size=3, batch_wait_timeout_s=5)
    async def squares(self, numbers: list[int]) -> list[tuple[int, int, str]]:
        return [(each**2, len(numbers), mesh.get_replica_context().deployment) for each in numbers]


class Counted:
    def __init__(self) -> None:
        self._counter = mesh.metrics.Counter("local_answers", tag_keys=("kind",))
        self._durations = mesh.metrics.Histogram("local_seconds", boundaries=[1.0])

    async def __call__(self, kind: str) -> None:
        self._counter.inc(tags={"kind": kind})
        self._durations.observe(0.5)


def test_metrics_of_user_code_name_their_deployment(mesh_app: RunMeshApp) -> None:
    """As on a mesh, though all deployments share the process (items 240, 252)."""
    one, two = (mesh.deployment(Counted).options(name=name).bind() for name in ("One", "Two"))
    app = mesh_app(Pair.bind(one, two), name="metered")
    for name, count in (("One", 1), ("Two", 2)):
        for _ in range(count):
            app.deployment(name).remote("warm").result(timeout_s=DEADLINE_S)
    with urllib.request.urlopen(f"{app.http_url}/-/metrics", timeout=DEADLINE_S) as reply:
        scraped = reply.read().decode().splitlines()
    for name, count in (("One", 1), ("Two", 2)):
        tags = f'application="metered",deployment="{name}",replica="{name}-local"'
        assert f"local_seconds_count{{{tags}}} {count}.0" in scraped
        with_kind = tags.replace(",replica", ',kind="warm",replica')
        assert f"local_answers_total{{{with_kind}}} {count}.0" in scraped


@mesh.deployment
class Pair:
    def __init__(self, one: Handle, two: Handle) -> None:
        self.handles = one, two

    async def __call__(self, model: str) -> list[str]:
        return [await each.options(multiplexed_model_id=model).remote() for each in self.handles]


def test_each_deployment_has_models_of_its_own(mesh_app: RunMeshApp) -> None:
    """They are evicted within their deployment, and unloaded at its end (items 119, 123, 134, 240)."""
    models_of_the_process = model_registry.model_ids()
    one, two = (mesh.deployment(Models).options(name=name).bind() for name in ("One", "Two"))
    app = mesh_app(Pair.bind(one, two))
    assert app.handle.remote("a").result(timeout_s=DEADLINE_S) == ["One/a", "Two/a"]
    assert app.handle.remote("b").result(timeout_s=DEADLINE_S) == ["One/b", "Two/b"]
    until(lambda: sorted(events) == ["One/a unloaded", "Two/a unloaded"], "both evictions")
    assert model_registry.model_ids() == models_of_the_process
    squares = app.deployment("Two").squares
    calls = [squares.remote(number) for number in (1, 2, 3)]
    assert [each.result(timeout_s=DEADLINE_S) for each in calls] == [(1, 3, "Two"), (4, 3, "Two"), (9, 3, "Two")]
    app.close()
    assert sorted(events[2:]) == ["One/b unloaded", "Two/b unloaded"]


@mesh.deployment
class Store(shop_pb2_grpc.ShopServicer):
    async def Price(self, request: Any, context: Any) -> Any:
        if not request.name:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no name")
        context.set_trailing_metadata([("seen", dict(context.invocation_metadata()).get("user", ""))])
        return shop_pb2.Item(name=request.name, amount=len(request.name))

    def Haggle(self, request_iterator: Iterator[Any], context: Any) -> Iterator[Any]:
        for item in request_iterator:
            yield shop_pb2.Item(amount=item.amount - 1)

    async def __call__(self, request: Any) -> dict[str, str]:
        return {"path": request.url.path, "deployment": mesh.get_replica_context().deployment}


def test_its_gateway_reports_it_as_serving(mesh_app: RunMeshApp) -> None:
    """By the health protocol, as that of a mesh does (item 219)."""
    app = mesh_app(Store.bind(), name="store")
    with grpc.insecure_channel(app.grpc_address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        for service in ("", "store", "mesh.tests.Shop"):
            answer = check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_clients_reach_it_by_grpc_and_http(mesh_app: RunMeshApp) -> None:
    """The gateway is the mesh's own, on ports that close with the application (item 256)."""
    app = mesh_app(Store.bind())
    with grpc.insecure_channel(app.grpc_address) as channel:
        stub = shop_pb2_grpc.ShopStub(channel)
        reply, call = stub.Price.with_call(shop_pb2.Item(name="pear"), metadata=[("user", "ada")], timeout=DEADLINE_S)
        assert (reply.amount, dict(call.trailing_metadata())["seen"]) == (4, "ada")
        with pytest.raises(grpc.RpcError) as caught:
            stub.Price(shop_pb2.Item(), timeout=DEADLINE_S)
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.NOT_FOUND, "no name")
        offers = stub.Haggle(iter([shop_pb2.Item(amount=7), shop_pb2.Item(amount=3)]), timeout=DEADLINE_S)
        assert [each.amount for each in offers] == [6, 2]
    with urllib.request.urlopen(f"{app.http_url}/fruit", timeout=DEADLINE_S) as response:
        assert response.read() == b'{"path":"/fruit","deployment":"Store"}'
    host, port = app.http_url.removeprefix("http://").split(":")
    app.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=DEADLINE_S)


web = FastAPI()


@mesh.deployment
class Clerk:
    def route(self) -> tuple[str, str]:
        request = current_request()
        assert request is not None
        return request.route, request.multiplexed_model_id


@mesh.deployment
@mesh.ingress(web)
class Desk:
    def __init__(self, clerk: Handle) -> None:
        self._clerk = clerk

    @web.get("/items/{name}")
    async def item(self, name: str) -> list[Any]:
        request = current_request()
        assert request is not None
        own = request.route, request.multiplexed_model_id
        return [own, await self._clerk.route.remote(), await self._clerk.route.options(tenant=name).remote()]


def test_calls_of_a_web_application_have_the_route_that_it_has_chosen(mesh_app: RunMeshApp) -> None:
    """The pattern, and not only the prefix (items 13, 131)."""
    app = mesh_app(Desk.bind(Clerk.bind()), route_prefix="/desk")
    with urllib.request.urlopen(f"{app.http_url}/desk/items/pear", timeout=DEADLINE_S) as response:
        assert json.loads(response.read()) == [["/desk/items/{name}", ""]] * 3


def test_a_setting_makes_every_run_a_local_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """`MESH_FORCE_LOCAL_TESTING_MODE=1`, without a change of the code (item 73)."""
    forced = replace(settings(), process=replace(settings().process, force_local_testing_mode=1))
    monkeypatch.setattr("mesh.api.settings", lambda: forced)
    handle = mesh.run(Prices.bind({"sign": "EUR"}), name="forced")
    (other,) = mesh.run_many([mesh.RunTarget(Prices.bind({"sign": "USD"}), name="other")])
    assert {each.init_options._source for each in (handle, other)} == {"UNKNOWN"}
    assert local_application("forced") is not None
    assert local_application("other") is not None
    mesh.delete("forced")
    mesh.delete("other")
    assert local_application("forced") is None
