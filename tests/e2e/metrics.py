"""A gateway's metrics, read as numbers."""

import urllib.request
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import Gateway

IN_FLIGHT = ("mesh_handle_queued_requests", "mesh_handle_ongoing_requests", "mesh_replica_ongoing_requests")


def scrape(gateway: Gateway) -> str:
    with urllib.request.urlopen(f"{gateway.http_url}/-/metrics", timeout=10) as response:
        return str(response.read().decode())


def families(gateway: Gateway) -> dict[str, Metric]:
    """By name; a counter's is without its `_total`."""
    return {family.name: family for family in text_string_to_metric_families(scrape(gateway))}


def value(gateway: Gateway, name: str, **labels: str) -> float:
    """Sum of the samples called `name` that have these labels."""
    return sum(values(scrape(gateway), name, labels))


def in_flight(gateway: Gateway, **labels: str) -> float:
    """Calls that are queued, sent or executed."""
    text = scrape(gateway)
    return sum(sum(values(text, name, labels)) for name in IN_FLIGHT)


def values(text: str, name: str, labels: dict[str, str]) -> Iterator[float]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                yield sample.value
