"""mesh.routing.router_metrics: what routers count becomes samples, whatever the labels."""

from types import SimpleNamespace
from typing import Any

from mesh.routing.router_metrics import REQUESTS, RouterCounts, _samples
from mesh.routing.snapshot import DeploymentKey


def test_a_code_that_grpc_does_not_define_spoils_no_scrape() -> None:
    counts = RouterCounts()
    counts.methods["price"].count(0, 0.1)
    counts.methods["price"].count(77, 0.1)
    router: Any = SimpleNamespace(key=DeploymentKey("shop", "Store"), counts=counts, queued=0, ongoing=0, link_count=0)
    by_family = dict(_samples(router))
    labels = [sample.label_values for sample in by_family[REQUESTS]]
    assert labels == [("shop", "Store", "price", "OK"), ("shop", "Store", "price", "UNKNOWN")]
