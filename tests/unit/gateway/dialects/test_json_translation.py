"""JSON translated to messages and back: large bodies in a thread, faults, and `Any`."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from gateway.dialects.translation.translation_thread import HUGE_MIN_BYTES, translate_in_thread
from gateway.dialects.translation.turn_budget import ON_LOOP_MAX_BYTES
from gateway.requests.exchange import BrokenBy
from tests.unit.fakes.fake_exchange import FakeExchange, send_body
from tests.unit.gateway.dialects.json_ends import SERVICE, JsonGateway, answer_with, json_of, sent_request
from tests.unit.gateway.fakes import until
from tests.unit.protos import kinds_pb2

TYPES = "type.googleapis.com/google.protobuf"


def test_a_large_request_and_response_are_translated_in_a_thread() -> None:
    title = "x" * (2 * ON_LOOP_MAX_BYTES)

    async def call() -> FakeExchange:
        gateway = JsonGateway(answer_with(kinds_pb2.Book(title=title)))
        exchange = gateway.ask("POST", f"{SERVICE}CreateBook", json.dumps({"title": title}).encode(), step=9999)
        assert not gateway.router.calls
        await until(lambda: exchange.has_ended, "the answer")
        assert sent_request(gateway.call, kinds_pb2.Book).title == title
        gateway.assert_counted_once(0)
        return exchange

    assert json_of(asyncio.run(call())) == {"title": title}


def test_huge_messages_do_not_delay_those_that_are_only_large() -> None:
    """Each of them may take hundreds of megabytes, so only one at a time is translated."""
    may_end = threading.Event()
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        may_end.wait(30)

    async def scenario() -> None:
        huge = [asyncio.create_task(translate_in_thread(HUGE_MIN_BYTES + 1, work, number)) for number in range(8)]
        await asyncio.sleep(0)
        try:
            assert await translate_in_thread(HUGE_MIN_BYTES, str, 7) == "7"
            assert not any(each.done() for each in huge)
            assert len(begun) <= 1
        finally:
            may_end.set()
            await asyncio.gather(*huge)

    asyncio.run(scenario())
    assert begun == list(range(8))


def test_a_wrong_large_request_is_refused_too() -> None:
    async def call() -> FakeExchange:
        gateway = JsonGateway()
        exchange = gateway.ask("POST", f"{SERVICE}CreateBook", b'{"titl":"' + b"x" * ON_LOOP_MAX_BYTES + b'"}')
        await until(lambda: exchange.has_ended, "the answer")
        gateway.assert_counted_once(3)
        return exchange

    assert "did you mean title?" in json_of(asyncio.run(call()))["message"]


@pytest.mark.parametrize(("step", "code"), [("_bound", 13), ("translate", 0)])
def test_a_fault_of_ours_in_the_thread_ends_the_call(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str, code: int
) -> None:
    """Nothing else would: the client would wait as long as it likes, and the gateway for it when it drains.

    A call whose response is lost was executed, and counts as that.
    """

    def fail(*arguments: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(f"gateway.dialects.json_http.json_call.JsonCall.{step}", fail)
    title = "x" * ON_LOOP_MAX_BYTES

    async def ask() -> FakeExchange:
        gateway = JsonGateway(answer_with(kinds_pb2.Book(title=title)))
        body = {"title": title} if step == "_bound" else {}
        exchange = gateway.ask("POST", f"{SERVICE}CreateBook", json.dumps(body).encode())
        await until(lambda: exchange.has_ended, "the answer")
        gateway.assert_counted_once(code)
        return exchange

    exchange = asyncio.run(ask())
    assert (exchange.status, json_of(exchange)["message"]) == (500, "The gateway failed; its log has the reason.")
    assert "a fault of ours" in caplog.text


def test_a_large_response_without_any_room_breaks_the_exchange() -> None:
    title = "x" * (2 * ON_LOOP_MAX_BYTES)

    async def ask() -> None:
        gateway = JsonGateway(answer_with(kinds_pb2.Book(title=title)))
        exchange, receiver = gateway.open("POST", f"{SERVICE}CreateBook")
        exchange.has_room = False
        assert receiver is not None
        send_body(exchange, receiver, b"{}")
        await until(lambda: exchange.has_ended, "the end")
        assert exchange.is_aborted

    asyncio.run(ask())


def test_a_large_response_counts_as_buffered_until_it_is_translated() -> None:
    """Those for which there is no room are not translated."""
    book = kinds_pb2.Book(title="x" * (2 * ON_LOOP_MAX_BYTES))

    async def ask() -> None:
        gateway = JsonGateway(answer_with(book))
        first, second = (gateway.open("POST", f"{SERVICE}CreateBook") for _ in range(2))
        second[0].share = first[0].share
        share = first[0].share
        share.budget.max_bytes = 3 * book.ByteSize()
        for exchange, receiver in (first, second):
            assert receiver is not None
            send_body(exchange, receiver, b"{}")
        await asyncio.sleep(0)
        assert share.used_bytes == book.ByteSize()
        await until(lambda: first[0].has_ended and second[0].has_ended, "both answers")
        assert sorted((first[0].status, second[0].status)) == [200, 429]
        assert share.used_bytes == 0

    asyncio.run(ask())


def test_a_client_that_leaves_while_its_request_is_translated_starts_no_call() -> None:
    async def call() -> None:
        gateway = JsonGateway()
        exchange, receiver = gateway.open("POST", f"{SERVICE}CreateBook")
        assert receiver is not None
        receiver.on_body(b'{"title":"' + b"x" * ON_LOOP_MAX_BYTES + b'"}')
        receiver.on_end()
        exchange.break_off()
        receiver.on_broken(BrokenBy.CLIENT)
        await asyncio.sleep(0)
        assert not gateway.router.calls
        gateway.assert_counted_once(1)

    asyncio.run(call())


def test_an_any_in_a_response_whose_bytes_are_not_of_its_type_is_internal() -> None:
    everything = kinds_pb2.Everything(any=AnyMessage(type_url=f"{TYPES}.Timestamp", value=b"\xff\xff"))
    gateway = JsonGateway(answer_with(everything))
    exchange = gateway.ask("POST", f"{SERVICE}Copy", b"{}")
    assert exchange.status == 500
    assert "cannot be JSON" in json_of(exchange)["message"]
    gateway.assert_counted_once(13)


@pytest.mark.parametrize("length", [0, 2 * ON_LOOP_MAX_BYTES], ids=["on the loop", "in a thread"])
def test_an_any_in_a_request_without_its_value_is_the_clients_fault(length: int) -> None:
    async def work() -> None:
        gateway = JsonGateway()
        body = b" " * length + json.dumps({"any": {"@type": f"{TYPES}.Timestamp"}}).encode()
        exchange = gateway.ask("POST", f"{SERVICE}Copy", body)
        await until(lambda: exchange.has_ended, "the answer")
        assert exchange.status == 400
        (detail,) = json_of(exchange)["details"]
        assert detail["fieldViolations"][0]["field"] == "any"
        gateway.assert_counted_once(3)

    asyncio.run(work())
