"""mesh.logs.log_form: records name the process and the request, and tracebacks begin with the user's code."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from mesh.context import REQUEST, Request
from mesh.logs.log_files import LogName
from mesh.logs.log_form import RequestFilter, TextFormatter, formatter_of
from mesh.v1 import control_pb2
from mesh.web.asgi_scope import ServedWebRequest
from mesh.wire.request_context import RequestContext

Written = list[str]
IDS = {"node_id": "n1", "worker_id": "w1", "actor_id": "a9"}
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def written() -> Iterator[tuple[logging.Logger, Written]]:
    """A logger and the texts of its records."""
    texts: Written = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(self.format(record))

    handler = Keeper()
    handler.addFilter(RequestFilter(LogName("replica", "shop", "Shop", "a1"), IDS))
    handler.setFormatter(TextFormatter())
    logger = logging.getLogger("tests.log_form")
    logger.propagate = False
    logger.addHandler(handler)
    yield logger, texts
    logger.removeHandler(handler)


def test_a_record_has_time_level_process_and_message(written: tuple[logging.Logger, Written]) -> None:
    logger, texts = written
    logger.warning("sold %d", 3)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING replica shop/Shop#a1 tests.log_form: sold 3", texts[0]
    )


def test_a_record_names_the_request_that_is_being_served(written: tuple[logging.Logger, Written]) -> None:
    logger, texts = written
    token = REQUEST.set(Request(RequestContext("r1")))
    try:
        logger.warning("sold")
    finally:
        REQUEST.reset(token)
    assert texts[0].endswith("WARNING replica shop/Shop#a1 [r1] tests.log_form: sold")


def test_a_record_of_a_web_request_has_the_route_that_the_application_has_chosen(
    written: tuple[logging.Logger, Written],
) -> None:
    """Not only the prefix (item 236)."""
    logger, texts = written
    logger.handlers[0].setFormatter(formatter_of(control_pb2.LoggingOptions(is_json=True)))
    request = ServedWebRequest(RequestContext("r1", "/shop"), None)
    request.scope = {"type": "http", "route": SimpleNamespace(path="/items/{name}")}
    token = REQUEST.set(request)
    try:
        logger.warning("sold")
    finally:
        REQUEST.reset(token)
    assert json.loads(texts[0])["route"] == "/shop/items/{name}"


def test_a_record_that_names_its_own_request_keeps_it(written: tuple[logging.Logger, Written]) -> None:
    logger, texts = written
    logger.warning("sold", extra={"request_id": "r2"})
    assert texts[0].endswith("[r2] tests.log_form: sold")


def test_a_traceback_follows_the_message(written: tuple[logging.Logger, Written]) -> None:
    logger, texts = written

    def sell() -> None:
        raise ValueError("sold out")

    call: Callable[[], None] = sell
    try:
        call()
    except ValueError:
        logger.exception("failed")
    head, *traceback = texts[0].splitlines()
    assert head.endswith(": failed")
    assert traceback[0] == "Traceback (most recent call last):"
    assert traceback[-1] == "ValueError: sold out"


def test_json_records_have_every_part_as_a_member(written: tuple[logging.Logger, Written]) -> None:
    """And what user code gives as `extra`, and the attributes that were asked for (item 236)."""
    logger, texts = written
    options = control_pb2.LoggingOptions(is_json=True, additional_attributes=["threadName"])
    logger.handlers[0].setFormatter(formatter_of(options))
    token = REQUEST.set(
        Request(RequestContext("r1", "/shop.Shop/Buy", traceparent=f"00-{TRACE_ID}-00f067aa0ba902b7-01"))
    )
    try:
        raise ValueError("sold out")
    except ValueError:
        logger.exception("no %s", "pears", extra={"item": {"pear"}, "application": "of the user"})
    finally:
        REQUEST.reset(token)
    (line,) = texts[0].splitlines()
    record = json.loads(line)
    assert list(record)[:3] == ["asctime", "levelname", "name"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}", record.pop("asctime"))
    assert record.pop("exc_text").endswith("ValueError: sold out")
    assert record.pop("lineno") > 1
    assert record == {
        "levelname": "ERROR",
        "name": "tests.log_form",
        "message": "no pears",
        "filename": "test_log_form.py",
        "component": "replica shop/Shop#a1",
        "component_name": "replica",
        "application": "of the user",
        "deployment": "Shop",
        "replica": "a1",
        "node_id": "n1",
        "worker_id": "w1",
        "actor_id": "a9",
        "trace_id": TRACE_ID,
        "request_id": "r1",
        "route": "/shop.Shop/Buy",
        "item": "{'pear'}",
        "threadName": "MainThread",
    }


class Unspeakable:
    def __str__(self) -> str:
        raise LookupError("no text")


IN_ITSELF: list[object] = []
IN_ITSELF.append(IN_ITSELF)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({("pear", 1): 2}, "{('pear', 1): 2}"),
        (IN_ITSELF, "[[...]]"),
        (math.nan, "nan"),
        (Unspeakable(), "<Unspeakable>"),
    ],
)
def test_a_value_that_has_no_json_form_costs_no_record(
    value: object, text: str, written: tuple[logging.Logger, Written]
) -> None:
    """The file had nothing of it, and of NaN what no strict reader takes (item 236)."""
    logger, texts = written
    logger.handlers[0].setFormatter(formatter_of(control_pb2.LoggingOptions(is_json=True)))
    logger.warning("sold", extra={"counts": value, "price": 2.5})
    found = json.loads(texts[0], parse_constant=pytest.fail)
    assert (found["message"], found["counts"], found["price"]) == ("sold", text, 2.5)
    assert texts[0].startswith('{"asctime": "')


def test_json_records_have_the_stack_that_was_asked_for(written: tuple[logging.Logger, Written]) -> None:
    logger, texts = written
    logger.handlers[0].setFormatter(formatter_of(control_pb2.LoggingOptions(is_json=True)))
    logger.warning("sold", stack_info=True)
    assert "test_json_records_have_the_stack_that_was_asked_for" in json.loads(texts[0])["stack_info"]


@pytest.mark.parametrize("traceparent", ["", "00", "00-" + '"' * 32 + "-1-1", "00-\n{}" + "é" * 40])
def test_a_trace_that_is_none_is_not_named(traceparent: str, written: tuple[logging.Logger, Written]) -> None:
    logger, texts = written
    logger.handlers[0].setFormatter(formatter_of(control_pb2.LoggingOptions(is_json=True)))
    token = REQUEST.set(Request(RequestContext("r1", traceparent=traceparent)))
    try:
        logger.warning("sold")
    finally:
        REQUEST.reset(token)
    assert "trace_id" not in json.loads(texts[0])
