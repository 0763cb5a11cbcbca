"""OpenTelemetry spans of requests through a mesh whose processes export them, as a collector receives them.

It is a mesh that was started with options for all its processes: for tracing, logs and the controller.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tests.e2e import leftovers
from tests.e2e.collector import CollectedSpan, Collector, running_collector
from tests.e2e.test_process_end import OWN_RAY, Program, started
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

pytestmark = pytest.mark.timeout(300)

APP = """
import asyncio
from opentelemetry import trace
import mesh
from tests.unit.protos import shop_pb2, shop_pb2_grpc

few = {"num_cpus": 0}

@mesh.deployment(ray_actor_options=few, max_ongoing_requests=100)
class Back:
    @mesh.batch(max_batch_size=2, batch_wait_timeout_s=30)
    async def double(self, numbers):
        await self.multiples(len(numbers))
        return [2 * number for number in numbers]

    async def multiples(self, count):
        return await mesh.get_deployment_handle("Narrow").remote(count)

    def fail(self):
        raise LookupError("no such thing")

@mesh.deployment(ray_actor_options=few, max_ongoing_requests=1)
class Narrow:
    async def __call__(self, number):
        await asyncio.sleep(0.05)
        return number

@mesh.deployment(ray_actor_options=few, max_ongoing_requests=100)
class Front(shop_pb2_grpc.ShopServicer):
    def __init__(self, back, narrow):
        self.back, self.narrow = back, narrow

    async def __call__(self, request):
        kind = request.query_params["kind"]
        if kind == "batch":
            with trace.get_tracer("user").start_as_current_span("own"):
                return await asyncio.gather(*(self.back.double.remote(number) for number in (1, 2)))
        if kind == "fail":
            return await self.back.fail.remote()
        if kind == "queue":
            return await asyncio.gather(*(self.narrow.remote(number) for number in (1, 2)))
        await asyncio.sleep(60)

    async def Price(self, request, context):
        return shop_pb2.Item(name="answered", amount=await self.narrow.remote(request.amount))

narrow = Narrow.bind()
app = Front.bind(Back.bind(), narrow)
"""

DEPLOYMENTS = ("Back", "Front", "Narrow")

PROGRAM = (
    OWN_RAY
    + """
import mesh
from traced_shop import app
mesh.start(
    http_options={{"port": {http_port}}},
    grpc_options={{"port": {grpc_port}}},
    tracing_config={{"enabled": True, "sampling_ratio": 1.0}},
    logging_config={{"encoding": "JSON", "logs_dir": "{ray}/own_logs"}},
    controller_options={{"runtime_env": {{"env_vars": {{"MARK_OF_THE_CONTROLLER": "{ray}"}}}}}},
)
mesh.run(app, blocking=True)
"""
)


@dataclass
class TracedMesh:
    """A mesh of its own, all of whose processes export to the collector."""

    program: Program
    collector: Collector
    ray_files: Path

    def get(self, kind: str, timeout_s: float = 20) -> str:
        """Send a request of a trace that a client began; returns the id of the trace."""
        trace_id = f"{random.getrandbits(128) | 1:032x}"
        headers = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01", "tracestate": "vendor=1"}
        url = f"{self.program.gateway.http_url}/?kind={kind}"
        with contextlib.suppress(urllib.error.HTTPError, TimeoutError):
            urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout_s).close()
        return trace_id

    def one(self, name: str, trace_id: str) -> CollectedSpan:
        return self.collector.one(name, trace_id)

    def two(self, name: str, trace_id: str) -> list[CollectedSpan]:
        until(lambda: len(self.collector.named(name, trace_id)) == 2)
        return self.collector.named(name, trace_id)


@pytest.fixture(scope="module")
def traced(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TracedMesh]:
    directory = tmp_path_factory.mktemp("traced")
    (directory / "traced_shop.py").write_text(APP)
    ray_files = Path(tempfile.mkdtemp(prefix="trc", dir=cluster.parent))
    with pytest.MonkeyPatch.context() as patch, running_collector() as collector:
        patch.delenv("OTEL_TRACES_EXPORTER", raising=False)
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.port}")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        with started(directory, ray_files, PROGRAM) as program:
            program.until_serving().close()
            yield TracedMesh(program, collector, ray_files)
    shutil.rmtree(ray_files, ignore_errors=True)


def test_a_request_is_one_trace_through_gateway_replicas_and_batch(traced: TracedMesh) -> None:
    trace_id = traced.get("batch")
    entry = traced.one("GET /", trace_id)
    assert (entry.service, entry.parent_id, entry.message.trace_state) == (
        "mesh-gateway",
        "00f067aa0ba902b7",
        "vendor=1",
    )
    assert entry.attributes["http.response.status_code"] == 200
    to_front, front = sorted_by_service(traced.two("Front/web", trace_id), last="Front")
    assert (to_front.parent_id, front.parent_id, to_front.service) == (entry.span_id, to_front.span_id, "mesh-gateway")
    own = traced.one("own", trace_id)
    assert (own.parent_id, own.service) == (front.span_id, "Front")

    until(lambda: len(traced.collector.named("Back/double", trace_id)) == 4)
    doubles = traced.collector.named("Back/double", trace_id)
    to_back = {span.span_id: span for span in doubles if span.service == "Front"}
    back = {span.span_id: span for span in doubles if span.service == "Back"}
    assert {span.parent_id for span in to_back.values()} == {own.span_id}
    assert {span.parent_id for span in back.values()} == set(to_back)

    batch = traced.one("batch Back.double", trace_id)
    assert batch.attributes["mesh.batch_size"] == 2
    assert batch.parent_id in back
    assert batch.links == set(back)
    assert all(span.links == {batch.span_id} for span in back.values())
    to_narrow, narrow = sorted_by_service(traced.two("Narrow/__call__", trace_id), last="Narrow")
    assert (to_narrow.parent_id, narrow.parent_id) == (batch.span_id, to_narrow.span_id)
    assert not any(span.is_error for span in traced.collector.spans if span.trace_id == trace_id)


def test_an_error_marks_every_span_on_its_way_and_names_its_place(traced: TracedMesh) -> None:
    trace_id = traced.get("fail")
    entry = traced.one("GET /", trace_id)
    assert (entry.is_error, entry.attributes["http.response.status_code"]) == (True, 500)
    to_back, back = sorted_by_service(traced.two("Back/fail", trace_id), last="Back")
    assert to_back.is_error
    assert back.is_error
    assert back.attributes["error.type"] == "LookupError"
    (event,) = back.message.events
    told = {each.key: each.value.string_value for each in event.attributes}
    assert "no such thing" in told["exception.message"]
    assert "in fail" in told["exception.stacktrace"]


def test_a_client_that_leaves_makes_cancelled_spans_and_no_error_of_the_replica(traced: TracedMesh) -> None:
    trace_id = traced.get("sleep", timeout_s=2)
    _, front = sorted_by_service(traced.two("Front/web", trace_id), last="Front")
    assert front.attributes["rpc.response.status_code"] == "CANCELLED"
    assert not front.is_error
    assert traced.one("GET /", trace_id).attributes["http.response.status_code"] == 499


def test_time_in_the_queue_is_a_span(traced: TracedMesh) -> None:
    trace_id = traced.get("queue")
    queue = traced.one("queue", trace_id)

    def waited_calls() -> list[CollectedSpan]:
        calls = traced.collector.named("Narrow/__call__", trace_id)
        return [span for span in calls if span.span_id == queue.parent_id and span.service == "Front"]

    (waited,) = until(waited_calls)
    assert 0 < queue.lasted_s < waited.lasted_s


def test_a_grpc_call_has_a_span_below_that_of_its_client(traced: TracedMesh) -> None:
    trace_id = f"{random.getrandbits(128) | 1:032x}"
    with grpc.insecure_channel(traced.program.gateway.grpc_address) as channel:
        metadata = [("traceparent", f"00-{trace_id}-00f067aa0ba902b7-01")]
        shop_pb2_grpc.ShopStub(channel).Price(shop_pb2.Item(amount=1), metadata=metadata, timeout=20)
    method = shop_pb2.DESCRIPTOR.services_by_name["Shop"].full_name + "/Price"
    entry = traced.one(method, trace_id)
    assert (entry.service, entry.parent_id) == ("mesh-gateway", "00f067aa0ba902b7")
    assert entry.attributes["rpc.response.status_code"] == "OK"
    to_front, front = sorted_by_service(traced.two(f"Front/{method}", trace_id), last="Front")
    assert (to_front.parent_id, front.parent_id) == (entry.span_id, to_front.span_id)
    traced.two("Narrow/__call__", trace_id)


def test_a_trace_that_is_not_sampled_is_not_exported(traced: TracedMesh) -> None:
    trace_id = f"{random.getrandbits(128) | 1:032x}"
    with grpc.insecure_channel(traced.program.gateway.grpc_address) as channel:
        metadata = [("traceparent", f"00-{trace_id}-00f067aa0ba902b7-00")]
        shop_pb2_grpc.ShopStub(channel).Price(shop_pb2.Item(amount=1), metadata=metadata, timeout=20)
    after = traced.get("batch")
    traced.one("batch Back.double", after)
    traced.one("GET /", after)
    assert not [span for span in traced.collector.spans if span.trace_id == trace_id]


def test_logs_of_controller_and_gateways_are_as_the_start_chose(traced: TracedMesh) -> None:
    """In their directory and in JSON; those of replicas without options of their own too (item 58)."""
    files = {path.name.partition("#")[0].removesuffix(".log"): path for path in own_logs(traced)}
    assert files.keys() == {"controller", "gateway", "replica"}
    for kind, path in files.items():
        records = [json.loads(line) for line in path.read_text().splitlines()]
        assert {record["component_name"] for record in records} == {kind}


def own_logs(traced: TracedMesh) -> list[Path]:
    return sorted((traced.ray_files / "own_logs").glob("*.log"))


def test_the_controller_and_what_it_starts_have_the_variables_of_its_options(traced: TracedMesh) -> None:
    """Ray hands them on to the actors of the controller, and to no other process (item 59)."""

    def titles() -> set[str]:
        marked = leftovers.processes_with(f"MARK_OF_THE_CONTROLLER={traced.ray_files}")
        return {title.split(maxsplit=1)[1].partition("#")[0].split()[0] for title in marked}

    expected = {"ray::mesh-controller", "ray::mesh-gateway", *(f"ray::default/{name}" for name in DEPLOYMENTS)}
    # A process that runs a method for Ray has another title as long as that takes.
    assert until(lambda: (found := titles()) == expected and found) == expected


def sorted_by_service(spans: list[CollectedSpan], last: str) -> list[CollectedSpan]:
    return sorted(spans, key=lambda span: span.service == last)
