"""The gRPC gateway as a stock client sees it: arities, metadata, trailers, statuses and health (items 211–224)."""

import itertools
import os
import queue
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

import mesh
from mesh.exceptions import GrpcStatusError
from mesh.v1 import serve_api_pb2
from mesh.v1.health_pb2 import HealthListResponse
from tests.e2e.conftest import MESSAGE_MAX_BYTES, Deploy, Run
from tests.e2e.gate import Gate
from tests.e2e.replicas import running
from tests.e2e.shop_services import LONG, Handle, Item, OtherStock, Refuser, Shop, Status, Stock
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

TO_SHOP = (("application", "shop"),)
TO_STOCK = (("application", "stock"),)
TIMEOUT_S = 60
"""Some calls wait for a replica that starts, and a watch lasts as long as a deploy and a delete."""
BUFFERED_MAX = 10_000
"""Long messages that fit into all flow control windows between two ends together; an endless stream does not."""


@pytest.fixture(scope="module")
def gate(deploy: Deploy) -> Handle:
    deploy(Shop.bind(Gate.bind(), Refuser.bind()), "shop")
    return mesh.get_deployment_handle("Gate", "shop")


@pytest.fixture
def shop(gate: Handle, channel: grpc.Channel) -> Any:
    return shop_pb2_grpc.ShopStub(channel)


@pytest.fixture(scope="module")
def deployed_stock(deploy: Deploy) -> Handle:
    return deploy(Stock.bind(), "stock")


@pytest.fixture
def stock(gate: Handle, deployed_stock: Handle, channel: grpc.Channel) -> Any:
    return shop_pb2_grpc.StockStub(channel)


@pytest.fixture
def health(gate: Handle, channel: grpc.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)


def failure(call: Any, request: Any, metadata: Any = TO_SHOP, timeout: float = TIMEOUT_S) -> grpc.Call:
    """The error a unary call ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, metadata=metadata, timeout=timeout)
    error: Any = caught.value
    return error


def test_the_only_application_needs_no_name(shop: Any) -> None:
    """This test is first in the file: no other application runs yet (item 212, C16)."""
    assert list(mesh.status().applications) == ["shop"]
    assert shop.Price(Item(name="answer", amount=3), timeout=TIMEOUT_S).amount == 3
    error = failure(shop.Price, Item(name="answer"), (("application", "nowhere"),))
    assert error.code() is Status.NOT_FOUND
    assert "nowhere" in error.details()
    assert "shop" in error.details()


def test_all_four_arities(shop: Any) -> None:
    """Each kind of method is called with parsed messages (items 211, 213, 215, 216)."""
    options = {"metadata": TO_SHOP, "timeout": TIMEOUT_S}
    assert shop.Price(Item(name="answer", amount=5), **options) == Item(name="answered", amount=5)
    assert [item.amount for item in shop.List(Item(amount=1000), **options)] == list(range(1000))
    assert shop.Total(iter([Item(amount=number) for number in range(1000)]), **options).amount == 499_500
    assert shop.Total(iter(()), **options).amount == 0
    assert [item.amount for item in shop.Haggle((Item(amount=n) for n in range(1000)), **options)] == list(
        range(1, 1001)
    )


def test_a_conversation_goes_back_and_forth(shop: Any) -> None:
    """Each answer comes before the next question is asked (item 216)."""
    questions: queue.SimpleQueue[Any] = queue.SimpleQueue()
    answers = shop.Haggle(iter(questions.get, None), metadata=TO_SHOP, timeout=TIMEOUT_S)
    for amount in range(5):
        questions.put(Item(amount=amount))
        assert next(answers).amount == amount + 1
    questions.put(None)
    assert list(answers) == []
    assert answers.code() is Status.OK


def test_metadata_reaches_the_servicer_and_the_request_id_comes_back(shop: Any) -> None:
    """A request id is made where the client sent none (items 124, 214)."""
    sent = (*TO_SHOP, ("request_id", "r-1"), ("multiplexed_model_id", "m-1"), ("x-own", "mine"))
    reply, call = shop.Price.with_call(Item(name="metadata"), metadata=sent, timeout=TIMEOUT_S)
    assert reply.name == "m-1 r-1 mine"
    assert dict(call.trailing_metadata())["request_id"] == "r-1"
    for _ in range(2):
        _, call = shop.Price.with_call(Item(name="answer"), metadata=TO_SHOP, timeout=TIMEOUT_S)
        trailers = dict(call.trailing_metadata())
        assert trailers["weight"] == "7"
        assert len(trailers["request_id"]) >= 16
    stream = shop.List(Item(amount=1), metadata=(*TO_SHOP, ("request_id", "r-2")), timeout=TIMEOUT_S)
    assert len(list(stream)) == 1
    assert dict(stream.trailing_metadata())["request_id"] == "r-2"


def test_what_user_code_sets_arrives(shop: Any) -> None:
    """Code, details and trailers are those of the context (items 217, 218)."""
    error = failure(shop.Price, Item(name="set code"))
    trailers = dict(error.trailing_metadata())
    assert (error.code(), error.details()) == (Status.NOT_FOUND, "sold out")
    assert (trailers["reason"], trailers["reason-bin"]) == ("sold", b"\0\xff")
    error = failure(shop.Price, Item(name="abort"))
    assert (error.code(), error.details()) == (Status.FAILED_PRECONDITION, "closed")
    assert dict(error.trailing_metadata())["opens"] == "monday"
    assert failure(shop.Price, Item(name="set code, then raise")).code() is Status.DATA_LOSS


def test_exceptions_of_user_code_are_internal_errors_with_their_text(shop: Any) -> None:
    """The request id comes back with them (item 144)."""
    error = failure(shop.Price, Item(name="raise"))
    assert error.code() is Status.INTERNAL
    assert "LookupError: no such item" in error.details()
    assert "request_id" in dict(error.trailing_metadata())
    error = failure(shop.Price, Item(name="wrong type"))
    assert error.code() is Status.INTERNAL
    assert "response message" in error.details()
    error = failure(shop.Price, Item(name="wrong initial metadata"))
    assert error.code() is Status.INTERNAL
    assert "User code set initial metadata 'Source'" in error.details()
    stream = shop.List(Item(name="raise", amount=3), metadata=TO_SHOP, timeout=TIMEOUT_S)
    assert [next(stream).amount for _ in range(3)] == [0, 1, 2]
    with pytest.raises(grpc.RpcError, match="list broke"):
        next(stream)
    assert stream.code() is Status.INTERNAL


def test_details_of_an_error_pass_through_deployments(shop: Any) -> None:
    """To handles and to stock clients (items 142, 143)."""
    error = failure(shop.Price, Item(name="refused below"))
    status = rpc_status.from_call(error)
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (error.code(), status.message, info.reason) == (Status.FAILED_PRECONDITION, "not today", "refused below")
    handle = mesh.get_deployment_handle("Refuser", "shop")
    with pytest.raises(GrpcStatusError) as caught:
        handle.check.remote("me").result(timeout_s=TIMEOUT_S)
    assert caught.value.error_details == (ErrorInfo(reason="me"),)


def test_initial_metadata_and_compressed_messages_reach_the_client(shop: Any) -> None:
    """From `async def` and from `def` methods (item 217)."""
    request = Item(name="initial metadata", amount=3)
    reply, call = shop.Price.with_call(request, metadata=TO_SHOP, timeout=TIMEOUT_S)
    assert reply.name == LONG
    assert dict(call.initial_metadata()) == {"source": "cellar", "blob-bin": b"\0\xff"}
    stream = shop.List(request, metadata=TO_SHOP, timeout=TIMEOUT_S)
    assert dict(stream.initial_metadata()) == {"source": "cellar"}
    assert [item.amount for item in stream] == [0, 1, 2]


def test_a_message_that_cannot_be_parsed_is_the_fault_of_the_client(gate: Handle, channel: grpc.Channel) -> None:
    """So it is not an internal error (item 215)."""
    error = failure(channel.unary_unary("/mesh.tests.Shop/Price"), b"\xff")
    assert error.code() is Status.INVALID_ARGUMENT
    assert error.details().startswith("The request message of /mesh.tests.Shop/Price cannot be parsed: ")


def test_a_service_that_is_named_at_start_and_a_second_application(stock: Any, shop: Any) -> None:
    """Both services have a method called Price (items 211, 212, 217)."""
    assert stock.Price(Item(amount=2), metadata=TO_STOCK, timeout=TIMEOUT_S) == Item(name="from stock", amount=2)
    reply, call = stock.Count.with_call(Item(amount=2), metadata=TO_STOCK, timeout=TIMEOUT_S)
    assert reply.amount == 3
    assert dict(call.trailing_metadata())["counted"] == "yes"
    assert shop.Price(Item(name="answer", amount=4), metadata=TO_SHOP, timeout=TIMEOUT_S).amount == 4


def test_without_metadata_a_method_stays_with_the_application_that_served_it_first(stock: Any, shop: Any) -> None:
    """A second application does not break clients of the first (items 67, 212, C16)."""
    assert shop.Price(Item(name="answer", amount=4), timeout=TIMEOUT_S).amount == 4
    assert stock.Count(Item(amount=2), timeout=TIMEOUT_S).amount == 3
    # Shop has a Price, so it serves that method of the named service too, and did before.
    assert stock.Price(Item(name="answer"), timeout=TIMEOUT_S).name == "answered"
    assert stock.Price(Item(name="answer"), metadata=TO_STOCK, timeout=TIMEOUT_S).name == "from stock"


def test_clients_of_the_first_application_lose_no_call_while_a_second_one_comes_and_goes(stock: Any, run: Run) -> None:
    """Both serve the same method, and the clients send no metadata (item 212)."""
    answers: list[int] = []
    has_ended = threading.Event()

    def keep_calling() -> None:
        while not has_ended.is_set():
            answers.append(stock.Count(Item(amount=2), timeout=TIMEOUT_S).amount)

    with ThreadPoolExecutor() as threads:
        caller = threads.submit(keep_calling)
        try:
            until(lambda: answers, timeout_s=TIMEOUT_S)
            run(OtherStock.bind(), "other")
            named = stock.Count(Item(amount=2), metadata=(("application", "other"),), timeout=TIMEOUT_S)
            mesh.delete("other")
            seen = len(answers)
            until(lambda: len(answers) > seen or caller.done(), timeout_s=TIMEOUT_S)
        finally:
            has_ended.set()
        caller.result(TIMEOUT_S)
    assert named.amount == 102
    assert set(answers) == {3}


def test_an_unknown_method_is_answered_with_the_known_ones(stock: Any, channel: grpc.Channel) -> None:
    for path, hint in (("/mesh.tests.Shop/Prise", "Price"), ("/no.Such/Thing", "mesh.tests.Shop")):
        error = failure(channel.unary_unary(path), b"")
        assert error.code() is Status.UNIMPLEMENTED
        assert hint in error.details()
    # Shop has a Price, so it serves that method of the named service too; it has no Count.
    assert failure(stock.Count, Item(), TO_SHOP).code() is Status.UNIMPLEMENTED


def test_a_message_beyond_the_limit_is_refused_in_either_direction(shop: Any) -> None:
    """The limit of the mesh holds at the gateway (item 221)."""
    error = failure(shop.Price, Item(name="x" * MESSAGE_MAX_BYTES))
    assert error.code() is Status.RESOURCE_EXHAUSTED
    assert shop.Price(Item(name="answer"), metadata=TO_SHOP, timeout=TIMEOUT_S).name == "answered"


def test_a_clients_cancel_and_deadline_reach_user_code_in_every_arity(shop: Any, gate: Handle) -> None:
    """Unary and streaming methods are cancelled alike (item 220)."""
    for name, call in (
        ("unary gone", shop.Price.future(Item(name="unary gone"), metadata=TO_SHOP)),
        ("talk gone", shop.Haggle(iter([Item(name="talk gone")]), metadata=TO_SHOP)),
    ):
        until(lambda name=name: name in gate.entered.remote().result(timeout_s=10))
        call.cancel()
        until(lambda name=name: name in gate.cancelled_at_s.remote().result(timeout_s=10))
    error = failure(shop.Price, Item(name="too late"), timeout=1.0)
    assert error.code() is Status.DEADLINE_EXCEEDED
    until(lambda: "too late" in gate.cancelled_at_s.remote().result(timeout_s=10))


def test_a_client_that_does_not_read_holds_back_the_producer(shop: Any, gate: Handle) -> None:
    stream = shop.List(Item(name=LONG, amount=10_000_000), metadata=TO_SHOP, timeout=TIMEOUT_S)
    assert next(stream).amount == 0
    # Meanwhile another stream of the same replica passes completely.
    other = shop.List(Item(amount=3000), metadata=TO_SHOP, timeout=TIMEOUT_S)
    assert len(list(other)) == 3000
    listed = mesh.get_app_handle("shop").listed.remote().result(timeout_s=10)
    assert 0 < listed < BUFFERED_MAX
    stream.cancel()


def test_a_servicer_that_does_not_read_holds_back_the_client(shop: Any, gate: Handle) -> None:
    """All that is on its way fits into the flow control windows."""
    sent = 0

    def endless() -> Iterator[Any]:
        nonlocal sent
        while True:
            sent += 1
            yield Item(name="upload" if sent == 1 else LONG)

    talk = shop.Haggle(endless(), metadata=TO_SHOP, timeout=TIMEOUT_S)
    until(lambda: "upload" in gate.entered.remote().result(timeout_s=10))
    assert shop.Total(iter([Item(amount=1)] * 3000), metadata=TO_SHOP, timeout=TIMEOUT_S).amount == 3000
    assert sent < BUFFERED_MAX
    talk.cancel()


def test_a_dead_replica_is_named(shop: Any, gate: Handle) -> None:
    """Calls that may have run fail and are not repeated (item 166)."""
    calls = [shop.Price.future(Item(name="dies"), metadata=TO_SHOP, timeout=TIMEOUT_S) for _ in range(10)]
    until(lambda: gate.entered.remote().result(timeout_s=10).count("dies") == 10)
    replica_id, replica = next(iter(running("shop", "Shop").items()))
    os.kill(replica.pid, signal.SIGKILL)
    for call in calls:
        with pytest.raises(grpc.RpcError):
            call.result()
        assert call.code() is Status.UNAVAILABLE
        assert replica_id in call.details()
    # The next call waits for the replacement.
    assert shop.Price(Item(name="answer"), metadata=TO_SHOP, timeout=TIMEOUT_S).name == "answered"


def test_a_call_of_an_idempotent_method_survives_its_replica(stock: Any, tmp_path: Path) -> None:
    """Its `.proto` says so; the call waits for the replacement of the replica (item 166)."""
    died = tmp_path / "died"
    item = Item(name=str(died), amount=1)
    assert stock.Count(item, metadata=TO_STOCK, timeout=TIMEOUT_S).amount == 2
    assert died.exists()


def test_health_tells_of_the_server_its_services_and_applications(health: Any, stock: Any) -> None:
    for name in ("", "mesh.tests.Shop", "mesh.tests.Stock", "shop", "stock"):
        assert health.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S).status == SERVING
    assert failure(health.Check, health_pb2.HealthCheckRequest(service="nothing"), ()).code() is Status.NOT_FOUND


def test_health_lists_the_server_its_services_and_applications(gate: Handle, channel: grpc.Channel, stock: Any) -> None:
    """Any client may ask, whichever version of grpcio-health-checking is installed here (item 219)."""
    call = channel.unary_unary("/grpc.health.v1.Health/List", lambda request: request, HealthListResponse.FromString)
    listed = {name: reply.status for name, reply in call(b"", timeout=TIMEOUT_S).statuses.items()}
    assert (
        dict.fromkeys(["", "mesh.tests.Shop", "mesh.tests.Stock", "shop", "stock"], SERVING).items() <= listed.items()
    )


def test_a_health_watch_sees_an_application_come_and_go(health: Any) -> None:
    """It is NOT_SERVING while it has no replica (item 219)."""
    watch = health.Watch(health_pb2.HealthCheckRequest(service="watched"), timeout=TIMEOUT_S)
    unknown = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    assert next(watch).status == unknown
    mesh.run(Stock.bind(), name="watched", route_prefix="/watched")
    states = (reply.status for reply in watch)
    assert set(itertools.takewhile(lambda status: status != SERVING, states)) <= {NOT_SERVING}
    mesh.delete("watched")
    assert set(itertools.takewhile(lambda status: status != unknown, states)) <= {NOT_SERVING}
    watch.cancel()


def test_the_stock_reflection_client_describes_and_calls_what_is_deployed(
    stock: Any, gate: Handle, channel: grpc.Channel
) -> None:
    """It knows no `.proto` (item 222)."""
    pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert {"mesh.tests.Shop", "mesh.tests.Stock", "grpc.health.v1.Health"} <= set(services)
    method = pool.FindServiceByName("mesh.tests.Shop").methods_by_name["Price"]
    request, response = (message_factory.GetMessageClass(each) for each in (method.input_type, method.output_type))
    call = channel.unary_unary("/mesh.tests.Shop/Price", request.SerializeToString, response.FromString)
    assert call(request(name="answer", amount=3), metadata=TO_SHOP, timeout=TIMEOUT_S).amount == 3


def test_scripts_for_ray_serve_find_its_service(stock: Any, gate: Handle, channel: grpc.Channel) -> None:
    """Names and health of applications (item 219, D9)."""
    service = "/ray.serve.RayServeAPIService"
    names = channel.unary_unary(f"{service}/ListApplications", None, serve_api_pb2.ListApplicationsResponse.FromString)
    health = channel.unary_unary(f"{service}/Healthz", None, serve_api_pb2.HealthzResponse.FromString)
    assert {"shop", "stock"} <= set(names(b"", timeout=TIMEOUT_S).application_names)
    assert health(b"", timeout=TIMEOUT_S).message == "success"
