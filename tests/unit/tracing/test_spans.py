"""Spans of calls, queues, batches and models, in a mesh without Ray."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import fields
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import StatusCode

import mesh
from mesh.exceptions import RequestCancelledError
from mesh.link.outgoing_call import CallRequest
from mesh.multiplex.multiplex_decorator import model_registry
from mesh.replica.traced.traced_execution import TracedExecutor
from mesh.routing.choice.traffic_split import TrafficRule, TrafficSplit
from mesh.testing import replica_context
from mesh.tracing.span_maker import CLIENT, SERVER
from mesh.wire.identity import Identity
from mesh.wire.request_context import RequestContext
from tests.unit.fakes.small_mesh import KEY, until
from tests.unit.tracing.traced_mesh import Spans, own_id, parent_id, trace_id, traced_mesh_of
from tests.unit.web.web_calls import web_replica

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Store:
    def __init__(self) -> None:
        self.next: Any = None
        self.gate = threading.Event()
        self.entered = threading.Event()

    async def outer(self) -> str:
        return str(await self.next.remote())

    def in_thread(self) -> str:
        return str(self.next.remote().result(timeout_s=10))

    async def inner(self) -> str:
        return "inner"

    async def fail(self) -> None:
        raise LookupError("no such thing")

    async def sleep(self) -> None:
        self.entered.set()
        await asyncio.sleep(60)

    def block(self) -> None:
        self.entered.set()
        assert self.gate.wait(30)

    async def letters(self) -> Any:
        for letter in "ab":
            yield letter

    @mesh.batch(max_batch_size=2, batch_wait_timeout_s=30)
    async def double(self, numbers: list[int]) -> list[int]:
        await self.next.remote()
        return [2 * number for number in numbers]

    @mesh.batch(max_batch_size=1)
    async def wrong(self, numbers: list[int]) -> list[int]:
        return []

    @mesh.multiplexed()
    async def load(self, model_id: str) -> str:
        await self.next.remote()
        return model_id

    async def model(self) -> str:
        return await self.load(mesh.get_multiplexed_model_id())


@pytest.mark.parametrize("method", ["outer", "in_thread"])
def test_a_nested_call_is_below_the_span_of_the_code_that_makes_it(method: str) -> None:
    store = Store()
    with traced_mesh_of(store) as traced:
        store.next = traced.handle("inner")
        with traced.spans.tracer.start_as_current_span("own"):
            assert traced.handle(method).remote().result(timeout_s=10) == "inner"
        client, server = (traced.spans.one(f"Store/{method}", kind) for kind in ("CLIENT", "SERVER"))
        inner_client, inner_server = (traced.spans.one("Store/inner", kind) for kind in ("CLIENT", "SERVER"))
        [own] = traced.spans.named("own")
        chain = [own, client, server, inner_client, inner_server]
        assert [parent_id(span) for span in chain[1:]] == [own_id(span) for span in chain[:-1]]
        assert len({trace_id(span) for span in chain}) == 1


def test_an_error_marks_both_ends_and_the_callee_says_where() -> None:
    with traced_mesh_of(Store()) as traced:
        with pytest.raises(LookupError):
            traced.handle("fail").remote().result(timeout_s=10)
        client, server = (traced.spans.one("Store/fail", kind) for kind in ("CLIENT", "SERVER"))
        assert client.status.status_code is server.status.status_code is StatusCode.ERROR
        assert (server.attributes or {})["error.type"] == "LookupError"
        [event] = server.events
        assert "in fail" in str((event.attributes or {})["exception.stacktrace"])


def test_a_cancelled_call_is_no_error_of_its_replica() -> None:
    store = Store()
    with traced_mesh_of(store) as traced:
        response = traced.handle("sleep").remote()
        assert store.entered.wait(30)
        response.cancel()
        with pytest.raises(RequestCancelledError):
            response.result(timeout_s=10)
        server = traced.spans.one("Store/sleep", "SERVER")
        assert (server.attributes or {})["rpc.response.status_code"] == "CANCELLED"
        assert server.status.status_code is StatusCode.UNSET


def test_the_wait_for_a_place_is_a_span_and_a_call_that_is_sent_at_once_has_none() -> None:
    store = Store()
    with traced_mesh_of(store, limit=1) as traced:
        first = traced.handle("block").remote()
        assert store.entered.wait(30)
        second = traced.handle("inner").remote()
        store.gate.set()
        first.result(timeout_s=10)
        second.result(timeout_s=10)
        [queue] = traced.spans.named("queue")
        assert parent_id(queue) == own_id(traced.spans.one("Store/inner", "CLIENT"))


def test_a_stream_has_one_span_until_its_end() -> None:
    with traced_mesh_of(Store()) as traced:
        assert list(traced.handle("letters", stream=True).remote()) == ["a", "b"]
        traced.spans.one("Store/letters", "SERVER")
        traced.spans.one("Store/letters", "CLIENT")


def test_a_batch_is_below_its_first_caller_and_linked_with_all() -> None:
    store = Store()
    with replica_context(), traced_mesh_of(store) as traced:
        store.next = traced.handle("inner")
        responses = [traced.handle("double").remote(number) for number in (1, 2)]
        assert [response.result(timeout_s=10) for response in responses] == [2, 4]
        [batch] = traced.spans.named("batch Store.double")
        callers = [span for span in traced.spans.named("Store/double", 4) if span.kind.name == "SERVER"]
        assert {link.context.span_id for link in batch.links} == {own_id(span) for span in callers}
        assert all([link.context.span_id for link in span.links] == [own_id(batch)] for span in callers)
        assert parent_id(batch) in {own_id(span) for span in callers}
        assert parent_id(traced.spans.one("Store/inner", "CLIENT")) == own_id(batch)


def test_a_batch_that_fails_says_so() -> None:
    with replica_context(), traced_mesh_of(Store()) as traced:
        with pytest.raises(mesh.exceptions.MeshException):
            traced.handle("wrong").remote(1).result(timeout_s=10)
        [batch] = traced.spans.named("batch Store.wrong")
        assert batch.status.status_code is StatusCode.ERROR


def test_the_load_of_a_model_is_below_the_request_that_needed_it() -> None:
    store = Store()
    with replica_context(), traced_mesh_of(store) as traced:
        store.next = traced.handle("inner")
        assert traced.handle("model", multiplexed_model_id="m").remote().result(timeout_s=10) == "m"
        [load] = traced.spans.named("load model")
        assert parent_id(load) == own_id(traced.spans.one("Store/model", "SERVER"))
        assert parent_id(traced.spans.one("Store/inner", "CLIENT")) == own_id(load)
        # As at the end of a replica: the registry of models belongs to the process.
        traced.mesh.replicas[0].user_loop.submit(model_registry.unload_all()).result(timeout=10)


def test_calls_without_a_place_to_go_end_their_spans() -> None:
    """An unavailable deployment answers without a replica."""
    with traced_mesh_of(Store()) as traced:
        traced.mesh.replicas.pop().close()
        traced.mesh.publish(unavailable="broken")
        with pytest.raises(mesh.exceptions.DeploymentUnavailableError):
            traced.handle("inner").remote().result(timeout_s=10)
        assert traced.spans.one("Store/inner", "CLIENT").status.status_code is StatusCode.ERROR


class BrokenProcessor(SpanProcessor):
    """Of the user, by `tracing_config`."""

    def __init__(self, broken: str) -> None:
        self._broken = broken

    def on_start(self, span: object, parent_context: object = None) -> None:
        if self._broken == "on_start":
            raise LookupError("no such exporter")

    def on_end(self, span: object) -> None:
        if self._broken == "on_end":
            raise LookupError("no such exporter")


@pytest.mark.parametrize("broken", ["on_start", "on_end"])
def test_a_processor_that_raises_costs_spans_and_no_calls(broken: str, caplog: pytest.LogCaptureFixture) -> None:
    """The log says so once, and not for each call."""
    with traced_mesh_of(Store()) as traced:
        traced.spans.provider.add_span_processor(BrokenProcessor(broken))
        for _ in range(3):
            assert traced.handle("inner").remote().result(timeout_s=10) == "inner"
        assert list(traced.handle("letters", stream=True).remote()) == ["a", "b"]
    assert [record.message for record in caplog.records if "spans are lost" in record.message] == [
        "spans are lost: a sampler or span processor raises. Further failures are not logged"
    ]
    assert len([record for record in caplog.records if record.levelname in ("ERROR", "WARNING")]) == 1


def test_a_trace_goes_on_where_a_sampler_or_processor_raises() -> None:
    """Calls below are below what the client has named."""
    spans = Spans()
    spans.provider.add_span_processor(BrokenProcessor("on_start"))
    context = RequestContext("r", traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")
    span = spans.maker.begin("x", SERVER, context, {})
    assert spans.maker.below(span, context).traceparent == context.traceparent


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise LookupError("no text")


class UnspeakableExit(Exception):
    def __str__(self) -> str:
        raise SystemExit


class Unspeakable:
    def __init__(self, error: type[Exception]) -> None:
        self.error = error

    async def __call__(self, request: object) -> None:
        raise self.error


@pytest.mark.parametrize("error", [UnspeakableError, UnspeakableExit])
def test_a_web_call_ends_whose_error_has_no_text(error: type[Exception]) -> None:
    """The span cannot note the error; the call has to end nevertheless, and leave its place."""
    traced = partial(TracedExecutor, Spans().maker, KEY)
    with patch("tests.unit.web.web_calls.Executor", traced), web_replica(Unspeakable, error) as replica:
        call = replica.start(path="/")
        assert call.ended().exception_type == error.__name__
        until(lambda: not call.answers.has_place, "the end of its place")


@pytest.mark.parametrize("error", [UnspeakableError, UnspeakableExit])
def test_a_shared_work_whose_error_has_no_text_raises_that_error(error: type[Exception]) -> None:
    """And not what its text has raised; the span has failed."""
    spans = Spans()
    with pytest.raises(error), spans.maker.internal("batch", {}):
        raise error
    [span] = spans.ended
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, error.__name__)


@pytest.mark.parametrize("broken", ["on_start", "on_end"])
def test_a_processor_that_raises_costs_no_batch(broken: str) -> None:
    spans = Spans()
    spans.provider.add_span_processor(BrokenProcessor(broken))
    done = []
    with spans.maker.internal("batch", {}):
        done.append("work")
    assert done == ["work"]


@given(st.text(max_size=70), st.text(max_size=70))
def test_no_text_of_a_client_breaks_a_span(traceparent: str, tracestate: str) -> None:
    spans = Spans()
    context = RequestContext("r", traceparent=traceparent, tracestate=tracestate)
    span = spans.maker.begin("x", SERVER, context, {})
    span.end()
    assert spans.maker.below(span, context).traceparent.startswith("00-")


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_what_one_process_passes_on_is_what_the_next_reads(trace: int, parent: int, is_sampled: bool) -> None:
    spans = Spans()
    context = RequestContext("r", traceparent=f"00-{trace:032x}-{parent:016x}-0{int(is_sampled)}", tracestate="a=1")
    span = spans.maker.begin("x", SERVER, context, {})
    passed_on = spans.maker.below(span, context)
    assert passed_on.traceparent[3:35] == f"{trace:032x}"
    assert passed_on.traceparent.endswith("-01") is is_sampled
    assert passed_on.tracestate == "a=1"
    span.end()
    assert len(spans.ended) == is_sampled


def test_only_the_trace_differs_in_what_is_passed_on() -> None:
    """Whatever fields a request context has."""
    identity = Identity("alice", {})
    context = RequestContext("r", "/shop", "shop", "m", "00-1", "a=1", identity, "tenant", "|+shop|")
    assert all(getattr(context, each.name) for each in fields(context) if each.compare)
    spans = Spans()
    span = spans.maker.begin("x", SERVER, context, {})
    served = spans.maker.served(span, context)
    for passed_on in (spans.maker.below(span, context), served, served.for_child("m")):
        changed = [
            each.name
            for each in fields(context)
            if each.compare and getattr(passed_on, each.name) != getattr(context, each.name)
        ]
        assert changed == ["traceparent", "tracestate"]
    assert served.for_child("", "other").tenant == "other"


@pytest.mark.parametrize("knows_version", [False, True])
@pytest.mark.parametrize("models", [("", ""), ("a", "b")])
def test_all_calls_of_a_traced_request_go_to_one_version(models: tuple[str, ...], knows_version: bool) -> None:
    """Also those that were made before the first of them was decided, and those inside of another span."""
    spans = Spans()
    split = TrafficSplit(TrafficRule("shop", "v2", 0.5), 0.0)

    def child(parent: RequestContext, model: str) -> CallRequest:
        context = parent.for_child(model)
        return CallRequest("m", None, spans.maker.below(spans.maker.begin("call", CLIENT, context, {}), context))

    chosen: list[str] = []
    for number in range(10):
        came = RequestContext(f"r{number}", "/shop", "other", track="|+shop|" if knows_version else "|-other|")
        parent = spans.maker.served(spans.maker.begin("serve", SERVER, came, {}), came)
        inside = spans.maker.served(spans.maker.begin("batch", SERVER, parent, {}), parent)
        calls = [child(parent, model) for model in models]
        for call in calls:
            split.decide(call)
        later = child(inside, models[0])
        split.decide(later)
        (track,) = {each.context.track for each in (*calls, later)}
        chosen.append(track)
    expected = {"|+shop|"} if knows_version else {"|-other||+shop|", "|-other||-shop|"}
    assert set(chosen) == expected
