"""One meaning: a call is the same in every dialect, for its method and for its client.

One random message, with random metadata, deadline and outcome, goes through all dialects over real sockets.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.link.outgoing_call import OutgoingCall
from mesh.rpc.status_details import DETAILS_KEY
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.fakes.shop_routes import HAGGLE, LIST, PRICE, STOCK_PRICE, TOTAL, every_dialect
from tests.unit.gateway.fakes import FakeRouter, allow, echo, finish, item, on_io_loop
from tests.unit.gateway.typed_clients import (
    Client,
    Metadata,
    Seen,
    TypedCall,
    by_connect,
    by_connectrpc,
    by_events,
    by_grpc,
    by_grpc_web,
    by_grpc_web_text,
    by_json,
    by_lines,
    by_websocket,
    own,
)
from tests.unit.protos.shop_pb2 import Item

STREAMING_CLIENTS: dict[str, Client] = {
    "gRPC": by_grpc,
    "Connect of Protobuf": by_connect("proto"),
    "Connect of JSON": by_connect("json"),
    "gRPC of connectrpc": partial(by_connectrpc, protocol="GRPC"),
    "JSON": by_json,
    "JSON in lines": by_lines,
    "WebSocket of JSON": by_websocket("json"),
    "WebSocket of Protobuf": by_websocket("proto"),
}
CLIENTS: dict[str, Client] = {
    **STREAMING_CLIENTS,
    "gRPC-Web": by_grpc_web,
    "gRPC-Web of text": by_grpc_web_text,
    "gRPC-Web of connectrpc": partial(by_connectrpc, protocol="GRPC_WEB"),
    "JSON in events": by_events,
}
GET_CLIENTS: dict[str, Client] = {
    "Connect by GET": by_connect("proto", uses_get=True),
    "Connect by GET of JSON": by_connect("json", uses_get=True),
}

# ---- What a method does, and what it saw -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Script:
    """What the method does."""

    responses: tuple[Item, ...]
    code: int
    message: str
    initial: Metadata
    trailing: Metadata
    details: tuple[ErrorInfo, ...]

    @property
    def outcome(self) -> Outcome:
        trailers = _trailers(self.trailing)
        if self.code and self.details:
            status = Status(code=self.code, message=self.message)
            for each in self.details:
                status.details.add().Pack(each)
            trailers += ((DETAILS_KEY, status.SerializeToString()),)
        return Outcome(code=self.code, message=self.message if self.code else "", trailers=trailers)


@dataclass
class MethodSaw:
    """What arrived at the method."""

    requests: list[Item] = field(default_factory=list)
    metadata: list[tuple[str, str | bytes]] = field(default_factory=list)
    remaining_s: float | None = None
    request_id: str = ""
    application: str = ""


def _trailers(entries: Metadata) -> tuple[tuple[str, bytes], ...]:
    return tuple((key, value.encode() if isinstance(value, str) else value) for key, value in entries)


class ScriptedMethod:
    """Behind the router: does what the script says, and notes what it gets."""

    def __init__(self, call: TypedCall, script: Script) -> None:
        self.typed = call
        self.script = script
        self.saw = MethodSaw()
        self.router = FakeRouter(self._begin)
        self.router.link.on_half_close = self._answer

    def _begin(self, call: OutgoingCall) -> None:
        request, deadline_at_s = call.request, call.request.deadline_at_s
        self.saw.metadata = own(request.metadata)
        self.saw.remaining_s = None if deadline_at_s is None else deadline_at_s - time.monotonic()
        self.saw.request_id, self.saw.application = request.context.request_id, request.context.app
        if request.payload is None:
            allow(call, 1000)
        else:
            self.saw.requests = [Item.FromString(bytes(request.payload.data))]
            self._answer(call)

    def _answer(self, call: OutgoingCall) -> None:
        script = self.script
        if self.typed.streams_request:
            self.saw.requests = [Item.FromString(each) for each in self.router.link.items]
        if script.initial:
            call.sink.on_initial_metadata(_trailers(script.initial))
        outcome = script.outcome
        if self.typed.streams_response:
            for each in script.responses:
                item(call, each.SerializeToString())
        elif not script.code:
            outcome.payload = raw(script.responses[0].SerializeToString())
        finish(call, outcome)


# ---- Random calls ----------------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)
ITEMS = st.builds(Item, name=TEXTS, amount=st.integers(-(2**63), 2**63 - 1))
KEYS = st.from_regex(r"x-own-[a-z0-9]{1,8}", fullmatch=True)
METADATA: st.SearchStrategy[Metadata] = st.lists(
    st.one_of(
        st.tuples(KEYS.filter(lambda key: not key.endswith("-bin")), VALUES),
        st.tuples(KEYS.map(lambda key: f"{key}-bin"), st.binary(min_size=1, max_size=20)),
    ),
    max_size=3,
    unique_by=lambda entry: entry[0],
).map(tuple)
DETAILS = st.builds(ErrorInfo, reason=TEXTS, domain=TEXTS, metadata=st.dictionaries(TEXTS, TEXTS, max_size=2))
TIMEOUTS = st.one_of(st.none(), st.integers(5_000, 60_000).map(lambda ms: ms / 1000))


def scripts(*, responses_min: int = 1) -> st.SearchStrategy[Script]:
    return st.builds(
        Script,
        responses=st.lists(ITEMS, min_size=responses_min, max_size=3).map(tuple),
        code=st.one_of(st.just(0), st.integers(1, 16)),
        message=TEXTS,
        initial=METADATA,
        trailing=METADATA,
        details=st.lists(DETAILS, max_size=2).map(tuple),
    )


UNARY_SCRIPTS, STREAM_SCRIPTS = scripts(), scripts(responses_min=0)


def calls(path: str, *, streams_request: bool = False, streams_response: bool = False) -> st.SearchStrategy[TypedCall]:
    return st.builds(
        TypedCall,
        path=st.just(path),
        requests=st.lists(ITEMS, min_size=0 if streams_request else 1, max_size=3 if streams_request else 1).map(tuple),
        streams_request=st.just(streams_request),
        streams_response=st.just(streams_response),
        metadata=METADATA,
        timeout_s=TIMEOUTS,
    )


def assert_one_meaning(call: TypedCall, script: Script, clients: dict[str, Client]) -> None:
    expected = Seen(
        code=script.code,
        message=script.message if script.code else "",
        responses=list(script.responses[: None if call.streams_response else 1]),
        initial=own(script.initial),
        trailing=own(script.trailing),
        details=list(script.details) if script.code else [],
    )
    if script.code and not call.streams_response:
        expected.responses = []
    for name, client in clients.items():
        method = ScriptedMethod(call, script)

        async def make_it(client: Client = client, method: ScriptedMethod = method) -> Seen:
            async with every_dialect(method.router) as listener:
                return await client(listener.port, call)

        seen = on_io_loop(make_it())
        assert_seen(name, seen, expected, call, method.saw)


def assert_seen(name: str, seen: Seen, expected: Seen, call: TypedCall, saw: MethodSaw) -> None:
    assert (seen.code, seen.responses) == (expected.code, expected.responses), name
    # A client of Connect takes an empty text for none, and writes one of its own.
    if expected.message or "onnect" not in name:
        assert seen.message == expected.message, name
    assert seen.details == expected.details, name
    for kind in ("initial", "trailing"):
        found = getattr(seen, kind)
        assert found in (None, getattr(expected, kind)), f"{name}: {kind} metadata"
    assert saw.requests == list(call.requests), name
    assert saw.metadata == own(call.metadata), name
    assert (saw.application, bool(saw.request_id)) == ("shop", True), name
    if call.timeout_s is None:
        assert saw.remaining_s is None, name
    else:
        assert saw.remaining_s is not None, name
        assert call.timeout_s - 4 < saw.remaining_s < call.timeout_s + 1, name


some = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@some
@given(calls(PRICE), UNARY_SCRIPTS)
def test_a_unary_call_means_the_same_in_every_dialect(call: TypedCall, script: Script) -> None:
    assert_one_meaning(call, script, CLIENTS)


@some
@given(calls(STOCK_PRICE), UNARY_SCRIPTS)
def test_a_call_by_get_means_the_same(call: TypedCall, script: Script) -> None:
    assert_one_meaning(call, script, GET_CLIENTS)


@some
@given(calls(LIST, streams_response=True), STREAM_SCRIPTS)
def test_a_server_stream_means_the_same_in_every_dialect(call: TypedCall, script: Script) -> None:
    assert_one_meaning(call, script, CLIENTS)


@some
@given(calls(TOTAL, streams_request=True), UNARY_SCRIPTS)
def test_a_client_stream_means_the_same_in_every_dialect_that_has_them(call: TypedCall, script: Script) -> None:
    assert_one_meaning(call, script, STREAMING_CLIENTS)


@some
@given(calls(HAGGLE, streams_request=True, streams_response=True), STREAM_SCRIPTS)
def test_a_bidirectional_stream_means_the_same_in_every_dialect_that_has_them(call: TypedCall, script: Script) -> None:
    assert_one_meaning(call, script, STREAMING_CLIENTS)


def wrong_heads() -> Iterator[tuple[str, Metadata]]:
    """By client: fields whose sender is at fault. The stock client of gRPC cannot send them, connectrpc's can."""
    for name in (CLIENTS | GET_CLIENTS).keys() - {"gRPC"}:
        is_json = "JSON" in name or "WebSocket" in name
        timeout = "connect-timeout-ms" if name.startswith("Connect") else "grpc-timeout"
        unit = "" if name.startswith("Connect") else "S"
        yield name, (("x-own-bin", "!"),)
        yield name, (("x-own-bin", "YQ==,Y"),)
        for number in ("1_0", "1e3", "+1", "1.5", "inf", ""):
            yield name, ((timeout, number + unit),)
        if is_json and not name.startswith("Connect"):
            yield name, (("x-request-timeout-seconds", "1_0"),)
            yield name, (("x-request-timeout-seconds", "inf"),)


def test_wrong_metadata_and_timeouts_are_the_fault_of_the_client_in_every_dialect() -> None:
    """INVALID_ARGUMENT, with the name of the field, and the method is not called."""

    async def scenario() -> None:
        router = FakeRouter()
        async with every_dialect(router) as listener:
            for name, fields in wrong_heads():
                path = STOCK_PRICE if name in GET_CLIENTS else PRICE
                call = TypedCall(path=path, requests=(Item(),), metadata=fields)
                seen = await (CLIENTS | GET_CLIENTS)[name](listener.port, call)
                assert seen.code == 3, (name, fields)
                assert fields[0][0] in seen.message, (name, fields, seen.message)
        assert not router.calls

    on_io_loop(scenario())


@pytest.mark.parametrize("name", CLIENTS)
def test_a_method_that_is_not_there_is_unimplemented_in_every_dialect(name: str) -> None:
    call = TypedCall(path="/mesh.tests.Shop/Absent", requests=(Item(),))

    async def make_it() -> Seen:
        async with every_dialect(FakeRouter()) as listener:
            return await CLIENTS[name](listener.port, call)

    seen: Any = on_io_loop(make_it())
    assert seen.code == 12
    assert "Absent" in seen.message


@pytest.mark.parametrize("name", CLIENTS | GET_CLIENTS)
def test_a_method_of_several_applications_is_that_of_the_first_in_every_dialect(name: str) -> None:
    """Unless the call names another one; an unknown name is NOT_FOUND (item 212)."""
    client, router = (CLIENTS | GET_CLIENTS)[name], FakeRouter(echo)
    path = STOCK_PRICE if name in GET_CLIENTS else PRICE

    async def codes() -> list[int]:
        async with every_dialect(router, apps=("shop", "art")) as listener:
            metadata: tuple[Metadata, ...] = ((), (("application", "art"),), (("application", "zoo"),))
            calls = [TypedCall(path=path, requests=(Item(),), metadata=each) for each in metadata]
            return [(await client(listener.port, call)).code for call in calls]

    assert on_io_loop(codes()) == [0, 0, 5]
    assert [call.request.context.app for call in router.calls] == ["shop", "art"]
