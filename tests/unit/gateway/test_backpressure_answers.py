"""What clients get of calls that back-pressure refuses: from the router of a full deployment to each HTTP dialect."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.requests.web_status import failure_of
from mesh.exceptions import BackPressureError, QueueTimeoutError
from mesh.routing.snapshot import Snapshot
from mesh.v1 import common_pb2
from mesh.wire.outcome import (
    BackpressureAnswer,
    Outcome,
    failed,
    failed_in_user_code,
    read_status,
    to_exception,
    write_status,
)
from tests.unit.fakes.shop_routes import PRICE, every_dialect
from tests.unit.fakes.small_mesh import KEY, SmallMesh, do_on_io, mesh_of, until
from tests.unit.gateway.fakes import on_io_loop
from tests.unit.gateway.typed_clients import TypedCall, by_grpc
from tests.unit.protos import shop_pb2_grpc
from tests.unit.protos.shop_pb2 import Item

pytestmark = pytest.mark.timeout(60)

RESOURCE_EXHAUSTED = 8
CHOSEN = BackpressureAnswer(429, 1.2)


class Shop(shop_pb2_grpc.ShopServicer):
    """Answers once it may."""

    def __init__(self) -> None:
        self.is_open = False

    async def Price(self, request: Any, context: Any) -> Any:
        while not self.is_open:  # noqa: ASYNC110  # set by the thread of the test
            await asyncio.sleep(0.002)
        return request

    async def hold(self) -> None:
        await self.Price(None, None)


@pytest.fixture
def full() -> Iterator[SmallMesh]:
    """One replica with one place, which is taken, and one place in the queue, which is taken as well."""
    shop = Shop()
    with mesh_of(shop, limit=1, queued_max=1) as mesh:
        held = [mesh.handle("hold", queue_timeout_s=60).remote() for _ in range(2)]
        until(lambda: mesh.router.queued == 1, "one call to run and one to wait")
        yield mesh
        shop.is_open = True
        for each in held:
            each.result(timeout_s=10)
        mesh.assert_idle()


def choose(mesh: SmallMesh, answer: BackpressureAnswer | None, queued_max: int = 1, timeout_s: float = 0.0) -> None:
    replicas = tuple(replica.info for replica in mesh.replicas)
    snapshot = Snapshot(KEY, 10**6, replicas, 1, queued_max, backpressure=answer, queue_timeout_s=timeout_s)
    do_on_io(mesh.router.update, snapshot)


async def by_json(mesh: SmallMesh) -> httpx.Response:
    async with every_dialect(mesh.router) as served, httpx.AsyncClient() as client:
        return await client.post(f"http://127.0.0.1:{served.port}{PRICE}", json={})


@pytest.mark.parametrize(
    ("answer", "status", "retry_after"),
    [
        (None, 429, None),
        (CHOSEN, 429, "2"),
        (BackpressureAnswer(503), 503, None),
        (BackpressureAnswer(503, 0.0), 503, "0"),
    ],
)
def test_json_of_a_full_deployment_has_its_status_and_retry_after(
    full: SmallMesh, answer: BackpressureAnswer | None, status: int, retry_after: str | None
) -> None:
    """A deployment without the option answers as ever (items 95, 144)."""
    choose(full, answer)
    response = on_io_loop(by_json(full))
    assert (response.status_code, response.headers.get("retry-after")) == (status, retry_after)
    assert response.json()["code"] == RESOURCE_EXHAUSTED
    assert "Request dropped due to backpressure" in response.json()["message"]


def test_a_queue_timeout_is_answered_like_a_full_queue(full: SmallMesh) -> None:
    choose(full, CHOSEN, queued_max=-1, timeout_s=0.05)
    response = on_io_loop(by_json(full))
    assert (response.status_code, response.headers["retry-after"]) == (429, "2")


def test_grpc_clients_get_resource_exhausted_in_any_case(full: SmallMesh) -> None:
    choose(full, CHOSEN)

    async def call() -> int:
        async with every_dialect(full.router) as served:
            return (await by_grpc(served.port, TypedCall(path=PRICE, requests=(Item(),)))).code

    assert on_io_loop(call()) == RESOURCE_EXHAUSTED


def test_handles_see_it_at_the_error(full: SmallMesh) -> None:
    choose(full, CHOSEN)
    with pytest.raises(BackPressureError) as caught:
        full.handle("hold").remote().result(timeout_s=10)
    assert (caught.value.status_code, caught.value.retry_after_s) == (429, 1.2)


@pytest.mark.parametrize(
    ("answer", "status", "fields"),
    [
        ({}, 503, ((b"retry-after", b"1"),)),
        ({"status_code": 429, "retry_after_s": 1.2}, 429, ((b"retry-after", b"2"),)),
        ({"status_code": 503}, 503, ()),
    ],
)
@pytest.mark.parametrize("kind", ["full", "too late"])
def test_the_answer_survives_a_parent_that_does_not_catch_the_error(
    kind: str, answer: dict[str, Any], status: int, fields: Any
) -> None:
    """A child's back-pressure is the web answer of its ingress (item 143)."""
    counts = {"num_queued_requests": 1, "max_queued_requests": 1}
    error = QueueTimeoutError("waited", 1.0, **counts, **answer) if kind != "full" else None
    child = over_the_wire(failed(error or BackPressureError(**counts, **answer)))
    parent = over_the_wire(failed_in_user_code(to_exception(child)))
    assert child.backpressure == parent.backpressure
    failure = failure_of(parent, "id", float("inf"))
    assert (failure.status, failure.fields) == (status, fields)


def over_the_wire(outcome: Outcome) -> Outcome:
    message = common_pb2.Status()
    write_status(outcome, message)
    return read_status(common_pb2.Status.FromString(message.SerializeToString()), None)
