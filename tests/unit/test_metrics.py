"""mesh.metrics: what user code counts is on the scrape, with the tags of its replica."""

from __future__ import annotations

import logging
import math
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import mesh
from gateway.ops.exposition import TextForm, render
from gateway.ops.metric_sums import NodeSums, read_reply
from mesh.metrics import Counter, Gauge, Histogram
from mesh.settings import settings
from mesh.testing import replica_context
from mesh.wire import telemetry


@pytest.fixture(autouse=True)
def metrics_of_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh.metrics, "_metrics", {})


def scraped() -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Samples of user metrics by name and tags, as Prometheus reads them from a gateway."""
    reply = telemetry.to_reply("p")
    text = render(NodeSums().update([], {"p": read_reply(reply)}), TextForm.CLASSIC)
    ours = tuple(mesh.metrics._metrics)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        if family.name.startswith(ours)
        for sample in family.samples
    }


def tags(**values: str) -> frozenset[tuple[str, str]]:
    return frozenset(values.items())


def test_metrics_of_a_replica_have_its_tags() -> None:
    """Application, deployment and replica are added (item 252)."""
    with replica_context(app_name="shop", deployment="Prices", replica_id="r1"):
        Counter("sold", "Sold.", ("kind",)).inc(2, {"kind": "pear"})
        Gauge("stock").set(7)
        Histogram("weight", boundaries=[1, 10]).observe(5)
        found = scraped()
    of_replica = {"application": "shop", "deployment": "Prices", "replica": "r1"}
    assert found["sold_total", tags(kind="pear", **of_replica)] == 2
    assert found["stock", tags(**of_replica)] == 7
    assert found["weight_bucket", tags(le="1.0", **of_replica)] == 0
    assert found["weight_bucket", tags(le="10.0", **of_replica)] == 1
    assert found["weight_sum", tags(**of_replica)] == 5


def test_outside_of_a_replica_no_tag_is_added_and_none_is_reserved() -> None:
    """A program may use the names (item 252)."""
    counter = Counter("sold", tag_keys=("replica",))
    counter.inc(tags={"replica": "mine"})
    assert scraped() == {("sold_total", tags(replica="mine")): 1}


@pytest.mark.parametrize("key", ["application", "deployment", "replica"])
def test_a_replica_reserves_the_names_of_its_tags(key: str) -> None:
    """As keys and as defaults (item 252)."""
    with replica_context():
        with pytest.raises(ValueError, match=f"The '{key}' tag is reserved"):
            Counter("sold", tag_keys=(key,))
        with pytest.raises(ValueError, match=f"The '{key}' tag is reserved"):
            Counter("other").set_default_tags({key: "x"})


def test_a_key_that_is_called_route_is_filled_from_the_request() -> None:
    """Unless the call gives it (item 252)."""
    counter = Counter("sold", tag_keys=("route",))
    counter.inc()
    with replica_context() as request:
        object.__setattr__(request.context, "route", "/prices")
        counter.inc()
        counter.inc(tags={"route": "/mine"})
    assert scraped() == {("sold_total", tags(route=route)): 1 for route in ("", "/prices", "/mine")}


def test_defaults_are_used_for_tags_that_a_call_leaves_out() -> None:
    """A call's own value wins; what has neither is an error (item 252)."""
    gauge = Gauge("stock", "Stock.", ("shop", "kind"))
    assert gauge.set_default_tags({"shop": "north"}) is gauge
    gauge.set(1, {"kind": "pear"})
    gauge.set(2, {"kind": "pear", "shop": "south"})
    gauge.set(None)
    with pytest.raises(ValueError, match=r"Missing value for tag key\(s\): kind"):
        gauge.set(3)
    assert scraped() == {
        ("stock", tags(shop="north", kind="pear")): 1,
        ("stock", tags(shop="south", kind="pear")): 2,
    }
    assert gauge.info == {
        "name": "stock",
        "description": "Stock.",
        "tag_keys": ("shop", "kind"),
        "default_tags": {"shop": "north"},
    }


def test_a_metric_that_is_made_again_goes_on() -> None:
    """In the constructor of another object, or from a pickle."""
    Counter("sold").inc()
    pickle.loads(pickle.dumps(Counter("sold"))).inc()
    Counter("sold_total").inc()
    assert scraped() == {("sold_total", tags()): 3}


def test_a_counter_without_tags_is_there_before_it_counts() -> None:
    Counter("sold")
    assert scraped() == {("sold_total", tags()): 0}


def test_threads_lose_no_count() -> None:
    counter = Counter("sold", tag_keys=("kind",))

    def count() -> None:
        for _ in range(1000):
            counter.inc(tags={"kind": "pear"})

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert scraped() == {("sold_total", tags(kind="pear")): 4000}


NO_NUMBER: Any = "1"
DEADLINE_S = 10.0
NO_TEXT: Any = 5


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda: Counter("mesh_sold"), ValueError, "cannot be called 'mesh_sold'"),
        (lambda: Counter("so-ld"), ValueError, "letters, digits and underscores"),
        (lambda: Counter(NO_TEXT), TypeError, "name must be a string"),
        (lambda: Counter("sold", tag_keys="kind"), TypeError, "tag_keys must be a tuple of strings"),
        (lambda: Counter("sold", tag_keys=("le",)), ValueError, "A tag key cannot be 'le'"),
        (lambda: Counter("sold", tag_keys=("a", "a")), ValueError, "must differ"),
        (lambda: Counter("sold").inc(0), ValueError, "value must be more than 0"),
        (lambda: Counter("sold").inc(NO_NUMBER), TypeError, "value must be a number"),
        (lambda: Counter("sold").inc(tags={"kind": "x"}), ValueError, "Unrecognized tag key 'kind'"),
        (lambda: Counter("sold", tag_keys=("kind",)).inc(tags={"kind": NO_TEXT}), TypeError, "must be a string"),
        (lambda: Counter("sold", tag_keys=("kind",)).inc(tags={"kind": "\ud800"}), ValueError, "kind"),
        (lambda: Counter("sold", tag_keys=("kind",)).inc(tags=NO_TEXT), TypeError, "tags must be a mapping"),
        (lambda: Counter("sold").set_default_tags(NO_TEXT), TypeError, "tags must be a mapping"),
        (lambda: Gauge("stock").set(NO_NUMBER), TypeError, "value must be a number"),
        (lambda: Histogram("weight", boundaries=[]), ValueError, "at least one"),
        (lambda: Histogram("weight", boundaries=[2, 1]), ValueError, "ascending"),
        (lambda: Histogram("weight", boundaries=[0]), ValueError, "more than 0"),
        (lambda: Histogram("weight").observe(NO_NUMBER), TypeError, "value must be a number"),
        (lambda: [Counter("sold"), Gauge("sold")], ValueError, "another kind, other tag keys or other boundaries"),
        (lambda: [Counter("sold"), Gauge("sold_total")], ValueError, "both be called 'sold_total'. Use another name"),
        (lambda: [Gauge("sold_total"), Counter("sold")], ValueError, "both be called 'sold_total'"),
        (lambda: [Histogram("sold"), Gauge("sold_sum")], ValueError, "both be called 'sold_sum'"),
    ],
)
def test_wrong_uses_say_what_is_right(use: Callable[[], Any], error: type[Exception], message: str) -> None:
    """None of them can spoil a scrape (item 252)."""
    with pytest.raises(error, match=message):
        use()
    scraped()


def test_names_may_resemble_each_other_where_series_differ() -> None:
    """A counter `weight_count` counts as `weight_count_total` (item 252)."""
    Histogram("weight", boundaries=[1]).observe(2)
    for number, name in enumerate(("weight_count", "weights", "weight_sum"), 1):
        Counter(name).inc(number)
    found = scraped()
    assert (found["weight_count", tags()], found["weight_sum", tags()]) == (1, 2)
    assert (found["weight_count_total", tags()], found["weights_total", tags()]) == (1, 2)
    assert found["weight_sum_total", tags()] == 3


def test_odd_numbers_do_not_spoil_a_scrape() -> None:
    Gauge("stock").set(math.inf)
    Histogram("weight").observe(math.nan)
    assert scraped()["stock", tags()] == math.inf


def test_series_have_a_limit(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Tags may come from requests: those beyond the limit are left out, and the log says so once."""
    monkeypatch.setattr(mesh.metrics, "settings", lambda: _WithLimit(3))
    counter = Counter("sold", tag_keys=("kind",))
    with caplog.at_level(logging.WARNING, "mesh"):
        for number in range(10):
            counter.inc(tags={"kind": str(number)})
        counter.inc(tags={"kind": "0"})
    assert scraped() == {("sold_total", tags(kind=kind)): 2 if kind == "0" else 1 for kind in "012"}
    assert len(caplog.records) == 1
    Gauge("a")
    Gauge("b")
    with pytest.raises(ValueError, match="MESH_USER_METRIC_SERIES_MAX"):
        Gauge("c")


def test_a_handler_of_logs_may_count_what_it_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the warning that there is no room for more series: it holds no lock while it is logged."""
    monkeypatch.setattr(mesh.metrics, "settings", lambda: _WithLimit(3))
    warnings, counter = Counter("warnings"), Counter("sold", tag_keys=("kind",))
    counted = []

    class Counting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            other = threading.Thread(target=warnings.inc, daemon=True)
            other.start()
            other.join(DEADLINE_S)
            counted.append(other.is_alive())

    handler = Counting()
    logging.getLogger("mesh").addHandler(handler)
    try:
        for number in range(10):
            counter.inc(tags={"kind": str(number)})
    finally:
        logging.getLogger("mesh").removeHandler(handler)
    assert counted == [False]
    assert scraped()["warnings_total", tags()] == 1


def test_code_that_counts_while_a_metric_is_counted_stops_no_thread() -> None:
    """A `__del__` that the garbage collector runs may come at any moment, also in the middle of a change."""
    counter = Counter("sold")

    def count_twice() -> None:
        with mesh.metrics._lock:
            counter.inc()

    thread = threading.Thread(target=count_twice, daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


class _WithLimit:
    """The settings with another limit."""

    def __init__(self, limit: int) -> None:
        self.process = type(settings().process)(user_metric_series_max=limit)
