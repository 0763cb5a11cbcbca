"""JSON streams take turns on the I/O loop: how much is translated in one turn is counted, and other calls go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import pytest

from gateway.dialects.translation.turn_budget import ON_LOOP_MAX_BYTES, TURN_BYTES, turn_budget
from gateway.requests.exchange import BrokenBy, ExchangeReceiver
from gateway.transcoding.request_binding import RequestBinding
from gateway.transcoding.response_json import ResponseForm
from mesh.link.outgoing_call import OutgoingCall
from mesh.settings import settings
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.fakes.fake_exchange import FakeExchange, send_body
from tests.unit.gateway.dialects.json_ends import SERVICE, JsonGateway
from tests.unit.gateway.fakes import allow, finish, item
from tests.unit.protos import kinds_pb2

LINES = ("content-type", "application/x-ndjson")
ITEM_BYTES = 10_000


def book(number: int, size: int = ITEM_BYTES) -> bytes:
    return kinds_pb2.Book(pages=number, title="x" * size).SerializeToString()


class Turns:
    """What is translated on the loop, turn by turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes_of_turns: list[int] = [0]
        write, bind = ResponseForm.json, RequestBinding.bind

        def counted_json(form: ResponseForm, message: Any) -> bytes:
            self._count(message)
            return write(form, message)

        def counted_bind(binding: RequestBinding, variables: Any, query: bytes, body: Any) -> bytes:
            self._count(body)
            return bind(binding, variables, query, body)

        monkeypatch.setattr(ResponseForm, "json", counted_json)
        monkeypatch.setattr(RequestBinding, "bind", counted_bind)

    def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            async with asyncio.timeout(30):
                await work()

        asyncio.run(main())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let turn after turn pass."""
        while not condition():
            await asyncio.sleep(0)
            self.bytes_of_turns.append(0)

    def _count(self, data: Any) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return  # in a thread, where nothing waits for it
        self.bytes_of_turns[-1] += len(data)

    def assert_bounded(self, message_bytes: int) -> None:
        # A turn of the test may lie between two of the loop.
        assert 0 < max(self.bytes_of_turns) <= 2 * (TURN_BYTES + message_bytes)


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    return Turns(monkeypatch)


def begin_stream(gateway: JsonGateway) -> tuple[FakeExchange, ExchangeReceiver]:
    exchange, receiver = gateway.open("GET", "/v1/books")
    assert receiver is not None
    receiver.on_end()
    return exchange, receiver


def pages(exchange: FakeExchange) -> list[int]:
    return [int(each.get("pages", 0)) for each in json.loads(exchange.body)]


def test_streams_are_translated_in_turns_and_other_calls_meanwhile(turns: Turns) -> None:
    async def work() -> None:
        gateway = JsonGateway()
        streams = [begin_stream(gateway)[0] for _ in range(8)]
        for number in range(40):
            for call in gateway.router.calls:
                item(call, book(number))
        for call in list(gateway.router.calls):
            finish(call, Outcome())
        small = gateway.ask("GET", "/v1/books/x")
        finish(gateway.router.calls[-1], Outcome(payload=raw(kinds_pb2.Book(pages=1).SerializeToString())))
        assert json.loads(small.body) == {"pages": "1"}
        assert not any(stream.has_ended for stream in streams)
        await turns.until(lambda: all(stream.has_ended for stream in streams))
        assert [pages(stream) for stream in streams] == [list(range(40))] * 8
        assert gateway.metrics.in_flight.count == 0
        assert not any(stream.share.used_bytes for stream in streams)

    turns.run(work)
    turns.assert_bounded(ITEM_BYTES)


def test_a_short_stream_does_not_wait_for_the_end_of_a_long_one(turns: Turns) -> None:
    async def work() -> None:
        gateway = JsonGateway()
        long, short = begin_stream(gateway)[0], begin_stream(gateway)[0]
        for number in range(100):
            item(gateway.router.calls[0], book(number))
        item(gateway.router.calls[1], book(1))
        finish(gateway.router.calls[1], Outcome())
        await turns.until(lambda: short.has_ended)
        assert len(long.pieces) < 50

    turns.run(work)


def test_large_items_are_translated_in_a_thread_and_keep_their_order(turns: Turns) -> None:
    async def work() -> None:
        gateway = JsonGateway()
        exchange, _ = begin_stream(gateway)
        sizes = [10, 2 * ON_LOOP_MAX_BYTES, 10, ITEM_BYTES, 3 * ON_LOOP_MAX_BYTES, 10]
        for number, size in enumerate(sizes):
            item(gateway.call, book(number, size))
        finish(gateway.call, Outcome(code=13, message="broken"))
        await turns.until(lambda: exchange.has_ended)
        *items, error = json.loads(exchange.body)
        assert [(int(each.get("pages", 0)), len(each["title"])) for each in items] == list(enumerate(sizes))
        assert error["error"]["message"] == "broken"
        gateway.assert_counted_once(13)
        assert exchange.share.used_bytes == 0

    turns.run(work)
    assert max(turns.bytes_of_turns) < ON_LOOP_MAX_BYTES


def test_credit_is_granted_when_items_were_translated(turns: Turns) -> None:
    async def work() -> None:
        gateway = JsonGateway()
        begin_stream(gateway)
        for number in range(settings().payload.stream_credits):
            item(gateway.call, book(number))
        early = sum(gateway.router.link.granted)
        assert early < settings().payload.stream_credits // 2
        await turns.until(lambda: sum(gateway.router.link.granted) == settings().payload.stream_credits)

    turns.run(work)


@pytest.mark.parametrize("size", [ITEM_BYTES, 2 * ON_LOOP_MAX_BYTES])
@pytest.mark.parametrize("has_outcome", [False, True])
def test_a_client_that_leaves_while_items_wait_ends_its_call(turns: Turns, size: int, has_outcome: bool) -> None:
    async def work() -> None:
        gateway = JsonGateway()
        exchange, receiver = begin_stream(gateway)
        for number in range(20):
            item(gateway.call, book(number, size))
        if has_outcome:
            finish(gateway.call, Outcome())
        sent = len(exchange.pieces)
        exchange.break_off()
        receiver.on_broken(BrokenBy.CLIENT)
        await turns.until(lambda: gateway.metrics.in_flight.count == 0)
        gateway.assert_counted_once(1)
        assert (len(exchange.pieces), exchange.share.used_bytes) == (sent, 0)

    turns.run(work)


def test_items_that_wait_are_counted_and_refused_without_room(turns: Turns) -> None:
    async def work() -> None:
        gateway = JsonGateway()
        exchange, _ = begin_stream(gateway)
        for number in range(20):
            item(gateway.call, book(number))
        assert exchange.share.used_bytes > 0
        exchange.share.budget.max_bytes = 0
        item(gateway.call, book(20))
        assert gateway.router.cancelled
        gateway.assert_counted_once(8)
        assert exchange.share.used_bytes == 0

    turns.run(work)


@pytest.mark.parametrize("size", [ITEM_BYTES, 2 * ON_LOOP_MAX_BYTES])
def test_an_item_that_is_no_json_ends_the_stream_behind_those_before_it(turns: Turns, size: int) -> None:
    async def work() -> None:
        gateway = JsonGateway()
        exchange, _ = begin_stream(gateway)
        for number in range(10):
            item(gateway.call, book(number))
        item(gateway.call, b"\xff" * size)
        await turns.until(lambda: exchange.has_ended)
        *items, error = json.loads(exchange.body)
        assert [int(each.get("pages", 0)) for each in items] == list(range(10))
        assert "cannot be JSON" in error["error"]["message"]
        gateway.assert_counted_once(13)

    turns.run(work)


@pytest.mark.parametrize("size", [10, ITEM_BYTES, 2 * ON_LOOP_MAX_BYTES])
def test_a_fault_of_ours_ends_the_stream(
    turns: Turns, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    monkeypatch.setattr("gateway.dialects.json_http.json_call.JsonCall.translate", fail)

    async def work() -> None:
        gateway = JsonGateway()
        exchange, _ = begin_stream(gateway)
        turn_budget().spend(TURN_BYTES)
        item(gateway.call, book(1, size))
        finish(gateway.call, Outcome())
        await turns.until(lambda: exchange.has_ended)
        assert exchange.status == 500
        gateway.assert_counted_once(13)

    turns.run(work)
    assert caplog.text.count("RuntimeError: a fault of ours") == 1


@pytest.mark.parametrize("lines_before", [0, 10], ids=["at once", "in a later turn"])
def test_a_fault_of_ours_in_a_line_ends_the_request(
    turns: Turns, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lines_before: int
) -> None:
    bind = RequestBinding.bind

    def fail_at_last(binding: RequestBinding, variables: Any, query: bytes, body: Any) -> bytes:
        return bind(binding, variables, query, body) if b"title" in bytes(body) else fail()

    monkeypatch.setattr(RequestBinding, "bind", fail_at_last)

    async def work() -> None:
        gateway = JsonGateway(lambda call: allow(call, 100))
        exchange, receiver = gateway.open("POST", "/v1/books:add", LINES)
        assert receiver is not None
        line = b'{"title":"%b"}\n' % (b"x" * ITEM_BYTES)
        send_body(exchange, receiver, line * lines_before + b'{"pages":1}\n' + line)
        await turns.until(lambda: exchange.has_ended)
        assert exchange.status == 500
        assert len(gateway.router.link.items) == lines_before
        gateway.assert_counted_once(13)

    turns.run(work)
    assert caplog.text.count("RuntimeError: a fault of ours") == 1


def test_what_waits_for_a_turn_goes_on_behind_one_that_fails() -> None:
    async def work() -> None:
        went_on = asyncio.Event()
        faults: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))
        budget = turn_budget()
        budget.wait(fail)
        budget.wait(went_on.set)
        async with asyncio.timeout(30):
            await went_on.wait()
        assert [str(each) for each in faults] == ["a fault of ours"]

    asyncio.run(work())


def fail(*arguments: object) -> NoReturn:
    raise RuntimeError("a fault of ours")


def test_many_responses_in_one_turn_go_to_threads(turns: Turns) -> None:
    def answer(call: OutgoingCall) -> None:
        finish(call, Outcome(payload=raw(book(1, ITEM_BYTES))))

    async def work() -> None:
        gateway = JsonGateway(answer)
        answers = [gateway.ask("GET", "/v1/books/x") for _ in range(50)]
        assert not all(each.has_ended for each in answers)
        await turns.until(lambda: all(each.has_ended for each in answers))
        assert {len(json.loads(each.body)["title"]) for each in answers} == {ITEM_BYTES}

    turns.run(work)
    turns.assert_bounded(ITEM_BYTES)


def test_lines_of_requests_are_translated_in_turns(turns: Turns) -> None:
    async def work() -> None:
        gateway = JsonGateway(lambda call: allow(call, 100))
        exchange, receiver = gateway.open("POST", "/v1/books:add", LINES)
        assert receiver is not None
        line = b'{"title":"%b"}\n' % (b"x" * ITEM_BYTES)
        send_body(exchange, receiver, line * 24)
        sent = gateway.router.link.items
        assert 0 < len(sent) < 24
        assert (exchange.given_room, gateway.router.link.half_closed) == (0, 0)
        await turns.until(lambda: bool(gateway.router.link.half_closed))
        assert len(sent) == 24
        assert exchange.given_room == 24 * len(line)
        finish(gateway.call, Outcome(payload=raw(b"")))
        assert exchange.share.used_bytes == 0

    turns.run(work)
    turns.assert_bounded(ITEM_BYTES)


@pytest.mark.parametrize("is_array", [False, True])
def test_large_messages_of_requests_are_translated_in_a_thread_and_keep_their_order(
    turns: Turns, is_array: bool
) -> None:
    """Some types take seconds for a megabyte."""
    sizes = [10, 2 * ON_LOOP_MAX_BYTES, 10, ITEM_BYTES, 3 * ON_LOOP_MAX_BYTES, 10]
    texts = [json.dumps({"pages": str(number + 1), "title": "x" * size}) for number, size in enumerate(sizes)]

    async def work() -> None:
        gateway = JsonGateway(lambda call: allow(call, 100))
        fields = () if is_array else (LINES,)
        body = f"[{', '.join(texts)}]" if is_array else "\n".join(texts)
        exchange = gateway.ask("POST", "/v1/books:add", body.encode(), *fields)
        assert exchange.share.used_bytes > 4 * ON_LOOP_MAX_BYTES
        await turns.until(lambda: bool(gateway.router.link.half_closed))
        sent = [kinds_pb2.Book.FromString(each) for each in gateway.router.link.items]
        assert [(each.pages, len(each.title)) for each in sent] == [(n + 1, size) for n, size in enumerate(sizes)]
        assert exchange.share.used_bytes == 0
        finish(gateway.call, Outcome(payload=raw(b"")))
        gateway.assert_counted_once(0)

    turns.run(work)
    assert max(turns.bytes_of_turns) < ON_LOOP_MAX_BYTES


def test_a_client_that_leaves_while_its_line_is_translated_ends_its_call(turns: Turns) -> None:
    async def work() -> None:
        gateway = JsonGateway(lambda call: allow(call, 100))
        exchange, receiver = gateway.open("POST", "/v1/books:add", LINES)
        assert receiver is not None
        receiver.on_body(b'{"title":"%b"}\n' % (b"x" * 2 * ON_LOOP_MAX_BYTES))
        exchange.break_off()
        receiver.on_broken(BrokenBy.CLIENT)
        await turns.until(lambda: gateway.metrics.in_flight.count == 0 and len(asyncio.all_tasks()) == 1)
        assert (gateway.router.link.items, exchange.share.used_bytes) == ([], 0)
        gateway.assert_counted_once(1)

    turns.run(work)


def test_both_ways_in_turns_over_one_exchange(turns: Turns) -> None:
    async def work() -> None:
        def echo_items(call: OutgoingCall) -> None:
            gateway.router.link.on_item = item
            gateway.router.link.on_half_close = lambda call: finish(call, Outcome())
            allow(call, 100)

        gateway = JsonGateway(echo_items)
        lines = [json.dumps({"title": "x" * ITEM_BYTES, "pages": str(number)}) for number in range(1, 30)]
        accept = ("accept", "application/x-ndjson")
        exchange = gateway.ask("POST", f"{SERVICE}Chat", "\n".join(lines).encode(), LINES, accept)
        await turns.until(lambda: exchange.has_ended)
        assert [json.loads(line)["pages"] for line in exchange.body.splitlines()] == [str(n) for n in range(1, 30)]
        gateway.assert_counted_once(0)

    turns.run(work)
