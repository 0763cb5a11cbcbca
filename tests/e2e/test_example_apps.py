"""The applications of `examples/apps/`, each called by the clients that it is for.

The same tests run in local testing mode, see tests/unit/local/test_local_example_apps.py. To wait with `until` is to
assert: it fails the test at its deadline.
"""

from __future__ import annotations

import importlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from websockets.sync.client import ClientConnection, connect

import mesh
from examples.weather import weather_pb2, weather_pb2_grpc
from mesh.cluster import ray_core
from tests.e2e.conftest import Gateway
from tests.e2e.waiting import until

DEADLINE_S = 20.0


@dataclass(frozen=True)
class Served:
    """One application while it runs."""

    handle: mesh.DeploymentHandle[Any]
    deployment: Callable[[str], mesh.DeploymentHandle[Any]]
    client: httpx.Client
    grpc_address: str

    def websocket(self, path: str) -> ClientConnection:
        url = str(self.client.base_url).replace("http", "ws", 1).rstrip("/")
        return connect(f"{url}{path}", proxy=None, open_timeout=DEADLINE_S)


Serve = Callable[[str], Served]


def application(name: str) -> mesh.Application:
    found = importlib.import_module(f"examples.apps.{name}").app
    assert isinstance(found, mesh.Application)
    return found


def client_of(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=DEADLINE_S, trust_env=False)


@pytest.fixture
def serve(gateway: Gateway) -> Iterator[Serve]:
    """Runs an application of `examples/apps/` for one test."""
    running: list[Served] = []

    def run(name: str) -> Served:
        handle = mesh.run(application(name), name=name, route_prefix=f"/{name}")
        served = Served(
            handle,
            lambda deployment: mesh.get_deployment_handle(deployment, name),
            client_of(f"{gateway.http_url}/{name}"),
            gateway.grpc_address,
        )
        running.append(served)
        return served

    yield run
    for served in running:
        served.client.close()
        mesh.delete(served.handle.app_name)


def test_thumbnails(serve: Serve) -> None:
    """Arrays go through a chain of responses that the ingress does not await (item 29)."""
    app = serve("thumbnails")
    image = np.zeros((64, 48, 3), np.uint8)
    image[:32] = 200
    answer = app.client.post("/", content=saved(image))
    assert answer.headers["content-type"] == "application/octet-stream"
    thumbnail = np.load(io.BytesIO(answer.content))
    assert thumbnail.shape == (16, 12, 3)
    assert (int(thumbnail[0, 0, 0]), int(thumbnail[-1, 0, 0])) == (255, 0)
    refused = app.client.post("/", content=saved(np.zeros((4, 4), np.uint8)))
    assert (refused.status_code, refused.text) == (400, "This is not an image of height × width × 3: (4, 4).")
    assert [app.client.post("/", content=content).status_code for content in (b"", b"GIF89a")] == [400, 400]


def saved(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, image)
    return file.getvalue()


def test_word_count(serve: Serve) -> None:
    """Many responses are arguments of one call, and of `asyncio.gather` (items 21, 29)."""
    app = serve("word_count")
    text = "\n".join(f"the line {number} of the text" for number in range(20))
    assert app.client.post("/?top=2", content=text).json() == {"the": 40, "line": 20}
    lengths = app.handle.lengths.remote([" ".join(["x"] * number) for number in range(12)])
    assert lengths.result(timeout_s=DEADLINE_S) == list(range(12))


def test_ensemble(serve: Serve) -> None:
    """The deployment that is bound once has one object, which serves both models (item 97)."""
    app = serve("ensemble")
    assert app.client.get("/", params={"text": "good good bad"}).json() == {"score": pytest.approx(1 / 3)}
    assert app.handle.score.remote("fine").result(timeout_s=DEADLINE_S) == 1
    assert app.deployment("Features").how_often.remote().result(timeout_s=DEADLINE_S) == 4


def test_tokens(serve: Serve) -> None:
    """Events come while the model runs; it ends with the answer, and with a client that leaves (items 47, 51, 112)."""
    app = serve("tokens")
    model = app.deployment("Model")

    def running() -> int:
        return int(model.how_many_run.remote().result(timeout_s=DEADLINE_S))

    asked = {"prompt": "tell damn me", "tokens_max": 6}
    answer = app.client.get("/generate", params=asked)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert tokens_in(answer.text) == ["tell", "me", "tell", "me"]
    assert answer.text.endswith("data: [DONE]\n\n")
    stopped = app.client.get("/generate", params={"prompt": "one stop two", "tokens_max": 10**6})
    assert tokens_in(stopped.text) == ["one"]
    until(lambda: running() == 0, timeout_s=DEADLINE_S)
    with app.client.stream("GET", "/generate", params={"prompt": "on", "tokens_max": 10**6}) as endless:
        lines = endless.iter_lines()
        assert next(lines) == 'data: {"token": "on"}'
        assert running() == 1
    until(lambda: running() == 0, timeout_s=DEADLINE_S)


def tokens_in(events: str) -> list[str]:
    lines = [line.removeprefix("data: ") for line in events.splitlines() if line.startswith("data: {")]
    return [json.loads(line)["token"] for line in lines]


def test_ab_test(serve: Serve) -> None:
    """Users of a gRPC client keep their variant; `user_config` sets the share (items 85, 211)."""
    app = serve("ab_test")

    def variant(stub: weather_pb2_grpc.WeatherStub, user: str) -> str:
        metadata = [("user", user), ("application", "ab_test")]
        request = weather_pb2.ForecastRequest(city="midtown", hour=8760)
        reply, call = stub.Forecast.with_call(request, metadata=metadata, timeout=DEADLINE_S)
        assert reply.celsius == {"old": 15.0, "new": 16.0}[reply.served_by]
        assert dict(call.trailing_metadata())["variant"] == reply.served_by
        return str(reply.served_by)

    with grpc.insecure_channel(app.grpc_address) as channel:
        stub = weather_pb2_grpc.WeatherStub(channel)
        users = [f"user {number}" for number in range(100)]
        variants = [variant(stub, user) for user in users]
        assert 10 <= variants.count("new") <= 30
        assert [variant(stub, user) for user in users[:10]] == variants[:10]


def test_tenants(serve: Serve) -> None:
    """The model of a request is named by its header, and passed on by hand (items 13, 119, 124)."""
    app = serve("tenants")

    def ask(tenant: str) -> tuple[int, Any]:
        answer = app.client.get("/", params={"x": 2}, headers={"serve_multiplexed_model_id": tenant})
        return answer.status_code, answer.json()

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, ["acme", "bolt", "core"] * 6))
    assert answers == [(200, {"y": 4.0}), (200, {"y": 6.0}), (200, {"y": 10.0})] * 6
    assert ask("dust") == (404, {"error": "There is no tenant 'dust'."})
    assert app.client.get("/", params={"x": 2}).status_code == 400
    assert app.client.get("/", headers={"serve_multiplexed_model_id": "acme"}).json() == {"y": 2.0}


def test_batch_scorer(serve: Serve) -> None:
    """Single rows that come at the same time share a batch (items 132, 140)."""
    app = serve("batch_scorer")

    def ask(number: int) -> dict[str, float]:
        answer: dict[str, float] = app.client.post("/", json=[number, 0, 0]).json()
        return answer

    with ThreadPoolExecutor(16) as pool:
        scores = list(pool.map(ask, range(64)))
    assert [each["score"] for each in scores] == [round(1 / (1 + np.exp(-number / 2)), 4) for number in range(64)]
    assert max(each["batch_size"] for each in scores) > 1
    with ThreadPoolExecutor(16) as pool:
        rows = [[0, 0, 0] if number % 2 else [0, 0] for number in range(32)]
        statuses = list(pool.map(lambda row: app.client.post("/", json=row).status_code, rows))
    assert statuses == [200 if number % 2 else 400 for number in range(32)]
    assert ask(0)["score"] == 0.5


def test_jobs(serve: Serve) -> None:
    """A job outlives the request that started it, and is cancelled by a later one (items 33, 36)."""
    app = serve("jobs")

    def start(rounds: int) -> str:
        return str(app.client.post("/jobs", params={"rounds": rounds}).raise_for_status().json())

    def job(name: str) -> dict[str, Any]:
        shown: dict[str, Any] = app.client.get(f"/jobs/{name}").raise_for_status().json()
        return shown

    short, long = start(3), start(10**6)
    done = {"state": "done", "rounds": 3, "loss": 0.25}
    until(lambda: job(short) == done, timeout_s=DEADLINE_S)
    until(lambda: job(long)["rounds"] > 5, timeout_s=DEADLINE_S)
    assert app.client.delete(f"/jobs/{long}").status_code == 204
    until(lambda: job(long)["state"] == "cancelled", timeout_s=DEADLINE_S)
    assert [app.client.delete(f"/jobs/{name}").status_code for name in (long, short)] == [204, 204]
    assert job(short) == done
    assert app.client.get("/jobs/none").status_code == 404


def test_jobs_that_wait_for_others(serve: Serve) -> None:
    """They can be asked for, and cancelled before they begin (item 36)."""
    app = serve("jobs")
    names = [app.client.post("/jobs", params={"rounds": 10**6}).raise_for_status().json() for _ in range(12)]

    def states() -> list[str]:
        return [app.client.get(f"/jobs/{name}").json()["state"] for name in names]

    until(lambda: sorted(states()) == ["running"] * 10 + ["waiting"] * 2, timeout_s=DEADLINE_S)
    waiting = names[states().index("waiting")]
    app.client.delete(f"/jobs/{waiting}").raise_for_status()
    cancelled = {"state": "cancelled", "rounds": 0}
    until(lambda: app.client.get(f"/jobs/{waiting}").json() == cancelled, timeout_s=DEADLINE_S)
    assert sorted(states()) == ["cancelled"] + ["running"] * 10 + ["waiting"]


def test_translators(serve: Serve) -> None:
    """A constructor gets a dictionary of handles for the one of bound deployments (item 96)."""
    app = serve("translators")
    expected = {"de": "guten Morgen", "fr": "bon matin", "es": "buenos días"}
    for language, text in expected.items():
        assert app.client.get(f"/{language}", params={"text": "good morning"}).json() == {language: text}
    assert app.client.get("/it", params={"text": "good morning"}).json() == {"error": "Languages: de, fr, es."}
    assert app.deployment("Translator-fr").translate.remote("good").result(timeout_s=DEADLINE_S) == "bon"


def test_autoscaled(serve: Serve) -> None:
    """Its own work goes on while replicas come; how many there are, tests/e2e/test_autoscaling.py tells."""
    app = serve("autoscaled")
    processes: set[int] = set()
    is_over = threading.Event()

    def load() -> int:
        answered = 0
        while not is_over.is_set():
            processes.add(app.client.get("/", params={"ms": 50}).raise_for_status().json()["rendered_by"])
            answered += 1
        return answered

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(load) for _ in range(8)]
        until(lambda: len(processes) >= replicas_wanted(), timeout_s=DEADLINE_S)
        is_over.set()
        assert min(client.result(timeout=DEADLINE_S) for client in clients) > 0


def replicas_wanted() -> int:
    """Two on a mesh; local testing mode has one replica of each deployment."""
    return 2 if ray_core.is_connected() else 1


def test_storefront(serve: Serve) -> None:
    """FastAPI's checks and errors, and errors of the services with their own type (items 25, 103)."""
    app = serve("storefront")
    pencil = {"sku": "p-1", "title": "Pencil", "price": 1.5, "in_stock": 12}
    assert app.client.get("/products/p-1").json() == pencil
    assert app.client.get("/products/x-9").json() == {"detail": "There is no product x-9."}
    order = {"sku": "p-1", "amount": 10}
    assert app.client.post("/orders", json=order).json() == {"total": 13.5, "left": 2}
    too_much = app.client.post("/orders", json=order)
    assert (too_much.status_code, too_much.json()) == (409, {"detail": "Only 2 are left."})
    assert app.client.post("/orders", json={"sku": "p-1", "amount": 0}).status_code == 422
    assert app.client.post("/orders", json={"sku": "x-9", "amount": 1}).status_code == 404
    assert "/orders" in app.client.get("/openapi.json").json()["paths"]


def test_chat(serve: Serve) -> None:
    """Sockets of several replicas are in one room, and a member that goes is seen to go (items 48, 111)."""
    app = serve("chat")
    with app.websocket("/rooms/den?name=ada") as ada:
        until(lambda: app.client.get("/rooms/den").json() == ["ada"], timeout_s=DEADLINE_S)
        with app.websocket("/rooms/den?name=bob") as bob, app.websocket("/rooms/other?name=eve") as eve:
            assert ada.recv(timeout=DEADLINE_S) == "bob is here"
            bob.send("hello")
            assert ada.recv(timeout=DEADLINE_S) == "bob: hello"
            ada.send("hello, bob")
            assert bob.recv(timeout=DEADLINE_S) == "ada: hello, bob"
            with pytest.raises(TimeoutError):
                eve.recv(timeout=0)
        assert ada.recv(timeout=DEADLINE_S) == "bob has left"
    until(lambda: app.client.get("/rooms/den").json() == [], timeout_s=DEADLINE_S)


def test_a_chat_member_that_joins_again(serve: Serve) -> None:
    """The end of its connection of before takes nothing from the new one, and empty rooms are gone (item 111)."""
    app = serve("chat")
    with app.websocket("/rooms/den?name=ada") as ada:
        until(lambda: app.client.get("/rooms/den").json() == ["ada"], timeout_s=DEADLINE_S)
        with app.websocket("/rooms/den?name=bob") as before:
            assert ada.recv(timeout=DEADLINE_S) == "bob is here"
            with app.websocket("/rooms/den?name=bob") as bob:
                assert ada.recv(timeout=DEADLINE_S) == "bob is here"
                before.close()
                ada.send("hello, bob")
                assert bob.recv(timeout=DEADLINE_S) == "ada: hello, bob"
            assert ada.recv(timeout=DEADLINE_S) == "bob has left"
    rooms = app.deployment("Rooms").how_many
    assert app.client.get("/rooms/empty").json() == []
    until(lambda: rooms.remote().result(timeout_s=DEADLINE_S) == 0, timeout_s=DEADLINE_S)
