"""mesh.logs.log_form: records name the process and the request, and tracebacks begin with the user's code."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator

import pytest

from mesh.context import REQUEST, Request
from mesh.logs.log_form import RequestFilter, TextFormatter
from mesh.wire.request_context import RequestContext

Written = list[str]


@pytest.fixture
def written() -> Iterator[tuple[logging.Logger, Written]]:
    """A logger and the texts of its records."""
    texts: Written = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(self.format(record))

    handler = Keeper()
    handler.addFilter(RequestFilter("replica shop/Shop#a1"))
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
