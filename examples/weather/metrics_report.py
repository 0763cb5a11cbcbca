"""The metrics part of the demo: one scrape, read as Prometheus does, its checks and a short table."""

from __future__ import annotations

import urllib.request
from collections import defaultdict

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from examples.weather.report import Report, Stopwatch, poll

IN_FLIGHT_METRICS = (
    "mesh_gateway_grpc_ongoing_requests",
    "mesh_replica_ongoing_requests",
    "mesh_handle_ongoing_requests",
)


def show_metrics(report: Report, url: str) -> None:
    watch = Stopwatch()
    samples = scrape(url)
    report.check("scrape", len(samples) > 0, f"{len(samples)} series", watch.elapsed_s)
    loads, unloads, resident = (
        total(samples, name)
        for name in (
            "mesh_multiplexed_models_load_total",
            "mesh_multiplexed_models_unload_total",
            "mesh_num_multiplexed_models",
        )
    )
    report.check("evictions", unloads > 0, f"{loads:.0f} models were fitted, {unloads:.0f} evicted")
    report.check("models in memory", 0 < resident <= 4, f"{resident:.0f}, at most 2 on each of 2 replicas")
    idle = poll(lambda: 0.0 if not in_flight(scrape(url)) else None)
    report.check("requests in flight", idle is not None, "none in gateway, replicas and handles")
    report.note("calls by deployment, method and status, from mesh_replica_requests_total:")
    for method, codes in calls(samples).items():
        report.note(f"  {method:<42} {codes}")


def scrape(url: str) -> list[Sample]:
    with urllib.request.urlopen(url, timeout=10) as response:
        families = text_string_to_metric_families(response.read().decode())
    return [sample for family in families for sample in family.samples]


def in_flight(samples: list[Sample]) -> float:
    return sum(total(samples, name) for name in IN_FLIGHT_METRICS)


def total(samples: list[Sample], name: str) -> float:
    return sum(sample.value for sample in samples if sample.name == name)


def calls(samples: list[Sample]) -> dict[str, str]:
    """Finished calls of the replicas: the number of each status, by deployment and method."""
    by_method: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        if sample.name == "mesh_replica_requests_total" and sample.value:
            method = sample.labels["method"].rpartition("/")[2]
            by_method[f"{sample.labels['deployment']}.{method}"].append(f"{sample.value:.0f} {sample.labels['code']}")
    return {method: ", ".join(codes) for method, codes in sorted(by_method.items())}
