"""The gateway's own counts, above all those of deleted applications."""

from __future__ import annotations

from gateway.ops.grpc_metrics import OTHER, GrpcMetrics
from gateway.requests.routes import Route
from mesh.routing.snapshot import DeploymentKey

METHOD = "/shop.Store/Get"


def count_one(metrics: GrpcMetrics, application: str) -> None:
    stats = metrics.of_route(Route(METHOD, DeploymentKey(application, "Store"), False, False))
    stats.started += 1
    stats.end(0, 0.001)


def series(metrics: GrpcMetrics) -> dict[str, dict[tuple[str, ...], float]]:
    """Sums by family and labels: of histograms, the number of observations."""
    sums: dict[str, dict[tuple[str, ...], float]] = {}
    for family, samples in metrics.collect():
        of_family = sums.setdefault(family.name, {})
        for sample in samples:
            value = sample.value or sum(sample.buckets)
            of_family[sample.label_values] = of_family.get(sample.label_values, 0) + value
    return sums


def test_a_deleted_application_keeps_its_counts_and_gets_them_back() -> None:
    metrics = GrpcMetrics()
    metrics.set_applications(["shop"])
    count_one(metrics, "shop")
    metrics.set_applications([])
    metrics.set_applications(["shop"])
    count_one(metrics, "shop")
    assert series(metrics)["mesh_gateway_grpc_requests_total"] == {("shop", METHOD, "OK"): 2}


def test_a_thousand_applications_that_came_and_went_leave_few_series_and_all_counts() -> None:
    metrics = GrpcMetrics()
    for number in range(1000):
        metrics.set_applications([f"app-{number}"])
        count_one(metrics, f"app-{number}")
    by_name = series(metrics)
    requests = by_name["mesh_gateway_grpc_requests_total"]
    assert len(requests) < 50
    assert sum(requests.values()) == 1000
    assert requests[OTHER, METHOD, "OK"] > 900
    assert sum(by_name["mesh_gateway_grpc_request_latency_seconds"].values()) == 1000
    assert by_name["grpc_server_started_total"]["unary", "shop.Store", "Get"] == 1000
