"""Metrics: one scrape shows what was done, with the right values, and a real Prometheus reads it."""

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import yaml

import mesh
from mesh.exceptions import BackPressureError, RequestCancelledError
from tests import monitoring
from tests.e2e.conftest import Deploy, Gateway
from tests.e2e.gate import Gate, small
from tests.e2e.metrics import families, in_flight, scrape, value
from tests.e2e.waiting import until
from tests.free_ports import free_ports
from tests.unit.protos import shop_pb2, shop_pb2_grpc

Handle = mesh.DeploymentHandle[Any]

APP = {"application": "metered"}
METERED = {**APP, "deployment": "Metered"}
METADATA = (("application", "metered"),)
OK_CALLS, FAILED_CALLS, CANCELLED_CALLS, GATEWAY_CALLS = 7, 3, 2, 5
FAMILIES = {
    "mesh_gateway_grpc_requests": {"application", "method", "code"},
    "mesh_gateway_grpc_request_latency_seconds": {"application", "method", "le"},
    "mesh_gateway_grpc_ongoing_requests": set(),
    "mesh_replica_requests": {"application", "deployment", "method", "code"},
    "mesh_replica_processing_latency_seconds": {"application", "deployment", "method", "le"},
    "mesh_replica_ongoing_requests": {"application", "deployment"},
    "mesh_replica_rejected": {"application", "deployment"},
    "mesh_replica_cancelled": {"application", "deployment"},
    "mesh_replica_links": {"application", "deployment"},
    "mesh_version_requests": {"application", "deployment", "version", "code"},
    "mesh_version_processing_latency_seconds": {"application", "deployment", "version", "le"},
    "mesh_handle_requests": {"application", "deployment", "method", "code"},
    "mesh_handle_request_latency_seconds": {"application", "deployment", "method", "le"},
    "mesh_handle_queued_requests": {"application", "deployment"},
    "mesh_handle_ongoing_requests": {"application", "deployment"},
    "mesh_handle_retries": {"application", "deployment", "cause"},
    "mesh_handle_rejected": {"application", "deployment"},
    "mesh_handle_dropped": {"application", "deployment"},
    "mesh_handle_cancelled": {"application", "deployment"},
    "mesh_links": {"application", "deployment"},
    "mesh_num_multiplexed_models": {"application", "deployment", "function_name"},
    "mesh_gateway_controller_connected": set(),
    "mesh_application_status": {"application", "status"},
    "mesh_deployment_status": {"application", "deployment", "status"},
    "mesh_deployment_replicas_wanted": {"application", "deployment"},
    "mesh_deployment_replicas_running": {"application", "deployment"},
    "mesh_deployment_places": {"application", "deployment"},
    "mesh_replica_restarts": {"application", "deployment", "reason"},
    "mesh_replica_failed_health_checks": {"application", "deployment"},
    "mesh_gateways_wanted": set(),
    "mesh_gateways": {"status"},
    "mesh_controller_start_time_seconds": set(),
    "mesh_controller_restarts": set(),
    "mesh_controller_turn_age_seconds": set(),
    "mesh_controller_turns": {"result"},
    "mesh_controller_turn_seconds": {"part"},
    "mesh_controller_actions": {"action"},
    "mesh_controller_publish_age_seconds": set(),
    "mesh_replicas": {"state"},
    "mesh_controller_streams": {"kind"},
    "mesh_controller_streams_behind": set(),
    "mesh_controller_store_calls": {"operation"},
    "mesh_controller_store_failures": {"operation"},
    "mesh_controller_store_seconds": {"operation"},
}


@small(max_ongoing_requests=2, max_queued_requests=1)
class Metered(shop_pb2_grpc.ShopServicer):
    def __init__(self, gate: Handle) -> None:
        self._gate = gate
        self._works = mesh.metrics.Counter("metered_works", "Works done.", tag_keys=("kind",))

    @mesh.multiplexed(max_num_models_per_replica=2)
    async def load(self, model_id: str) -> str:
        return model_id

    async def model(self) -> str:
        return await self.load(mesh.get_multiplexed_model_id())

    @mesh.batch(max_batch_size=2)
    async def batched(self, items: list[int]) -> list[int]:
        return items

    async def work(self) -> None:
        self._works.inc(tags={"kind": "plain"})

    async def fail(self) -> None:
        raise LookupError

    async def wait(self, label: str) -> str:
        return await self._gate.wait.remote(label)

    async def Price(self, request: Any, context: Any) -> Any:
        return request


@pytest.fixture(scope="module")
def metered(deploy: Deploy) -> Handle:
    return deploy(Metered.bind(Gate.bind()), "metered")


@pytest.fixture(scope="module")
def traffic(metered: Handle, gateway: Gateway, channel: grpc.Channel) -> None:
    """Known traffic of every kind, all of it over."""
    gate = mesh.get_deployment_handle("Gate", "metered")
    for _ in range(OK_CALLS):
        metered.work.remote().result(timeout_s=10)
    for _ in range(FAILED_CALLS):
        with pytest.raises(LookupError):
            metered.fail.remote().result(timeout_s=10)
    for model_id in ("a", "b", "c", "c"):
        metered.model.options(multiplexed_model_id=model_id).remote().result(timeout_s=10)
    metered.batched.remote(1).result(timeout_s=10)
    executing = [metered.wait.remote(f"cancelled {number}") for number in range(CANCELLED_CALLS)]
    until(lambda: len(gate.entered.remote().result(timeout_s=10)) == CANCELLED_CALLS)
    queued = metered.work.remote()
    with pytest.raises(BackPressureError):
        metered.work.remote().result(timeout_s=10)
    for call in executing:
        call.cancel()
        with pytest.raises(RequestCancelledError):
            call.result(timeout_s=10)
    queued.result(timeout_s=10)
    stub = shop_pb2_grpc.ShopStub(channel)
    for _ in range(GATEWAY_CALLS):
        stub.Price(shop_pb2.Item(), metadata=METADATA, timeout=10)
    for number in range(GATEWAY_CALLS):
        with pytest.raises(grpc.RpcError):
            channel.unary_unary(f"/stranger.Service{number}/Method")(b"", metadata=METADATA, timeout=10)
    until(lambda: in_flight(gateway, **APP) == 0)


def test_one_scrape_shows_every_family_with_its_labels(traffic: None, gateway: Gateway) -> None:
    shown = families(gateway)
    assert not FAMILIES.keys() - shown.keys()
    for name, labels in FAMILIES.items():
        used = {label for sample in shown[name].samples for label in sample.labels}
        assert used == labels, name


def test_requests_are_counted_by_deployment_method_and_code(traffic: None, gateway: Gateway) -> None:
    for side in ("mesh_handle_requests_total", "mesh_replica_requests_total"):
        assert value(gateway, side, **METERED, method="work", code="OK") == OK_CALLS + 1
        assert value(gateway, side, **METERED, method="fail", code="INTERNAL") == FAILED_CALLS
        assert value(gateway, side, **METERED, method="wait", code="CANCELLED") == CANCELLED_CALLS
        assert value(gateway, side, **METERED, method="/mesh.tests.Shop/Price", code="OK") == GATEWAY_CALLS
    assert value(gateway, "mesh_handle_requests_total", **METERED, code="RESOURCE_EXHAUSTED") == 1
    labels = {**APP, "method": "/mesh.tests.Shop/Price", "code": "OK"}
    assert value(gateway, "mesh_gateway_grpc_requests_total", **labels) == GATEWAY_CALLS


def test_metrics_of_user_code_are_on_the_same_scrape(traffic: None, gateway: Gateway, metered: Handle) -> None:
    """With the tags of their replica (item 252)."""
    (replica_id,) = mesh.status().applications["metered"].deployments["Metered"].replicas
    done = value(gateway, "mesh_replica_requests_total", **METERED, method="work", code="OK")
    assert value(gateway, "metered_works_total", **METERED, replica=replica_id, kind="plain") == done > 0


def test_rejected_dropped_and_cancelled_calls_are_counted(traffic: None, gateway: Gateway) -> None:
    assert value(gateway, "mesh_handle_dropped_total", **METERED) == 1
    assert value(gateway, "mesh_handle_cancelled_total", **METERED) == CANCELLED_CALLS
    assert value(gateway, "mesh_replica_cancelled_total", **METERED) == CANCELLED_CALLS
    assert value(gateway, "mesh_replica_cancelled_total", **APP, deployment="Gate") == CANCELLED_CALLS


def test_gauges_show_the_present(traffic: None, gateway: Gateway, metered: Handle) -> None:
    gate = mesh.get_deployment_handle("Gate", "metered")
    calls = [metered.wait.remote("present") for _ in range(3)]
    until(lambda: gate.entered.remote().result(timeout_s=10).count("present") == 2)
    until(lambda: value(gateway, "mesh_handle_queued_requests", **METERED) == 1)
    assert value(gateway, "mesh_handle_ongoing_requests", **METERED) == 2
    assert value(gateway, "mesh_replica_ongoing_requests", **METERED) == 2
    gate.open.remote("present").result(timeout_s=10)
    assert [call.result(timeout_s=10) for call in calls] == ["present"] * 3
    until(lambda: in_flight(gateway, **APP) == 0)


def test_links_and_models_are_counted(traffic: None, gateway: Gateway) -> None:
    """The driver and the gateway call the ingress; only the ingress and the driver call the gate."""
    assert value(gateway, "mesh_links", **METERED) == 2
    assert value(gateway, "mesh_replica_links", **METERED) == 2
    models = {**METERED, "function_name": "load"}
    assert value(gateway, "mesh_multiplexed_models_load_total", **models) == 3
    assert value(gateway, "mesh_num_multiplexed_models", **models) == 2


def test_the_state_of_the_mesh_is_shown(traffic: None, gateway: Gateway) -> None:
    """What the controller knows comes with the scrape of the gateway on its node."""
    assert value(gateway, "mesh_gateway_controller_connected") == 1
    assert value(gateway, "mesh_deployment_replicas_wanted", **METERED) == 1
    assert value(gateway, "mesh_deployment_replicas_running", **METERED) == 1
    assert value(gateway, "mesh_deployment_places", **METERED) == 2
    assert value(gateway, "mesh_deployment_status", **METERED, status="HEALTHY") == 1
    assert value(gateway, "mesh_application_status", **APP, status="RUNNING") == 1
    assert value(gateway, "mesh_gateways", status="HEALTHY") == value(gateway, "mesh_gateways_wanted") == 1
    assert 0 <= value(gateway, "mesh_controller_turn_age_seconds") < 10


def test_histograms_agree_with_the_counters(traffic: None, gateway: Gateway) -> None:
    labels = {**METERED, "method": "work"}
    for side in ("mesh_handle_request_latency_seconds", "mesh_replica_processing_latency_seconds"):
        assert value(gateway, f"{side}_count", **labels) == value(gateway, f"{side}_bucket", **labels, le="+Inf")
        assert value(gateway, f"{side}_sum", **labels) > 0
    assert value(gateway, "mesh_replica_processing_latency_seconds_count", **labels) == OK_CALLS + 1


def test_strangers_cannot_make_series(traffic: None, gateway: Gateway) -> None:
    assert "stranger" not in scrape(gateway)
    labels = {**APP, "method": "other", "code": "UNIMPLEMENTED"}
    assert value(gateway, "mesh_gateway_grpc_requests_total", **labels) == GATEWAY_CALLS


def test_health_and_routes_stand_beside_the_metrics(metered: Handle, gateway: Gateway) -> None:
    """So do the connections; all are on the operators' port (items 201, 202)."""
    assert get(f"{gateway.http_url}/-/healthz") == "success"
    assert json.loads(get(f"{gateway.http_url}/-/routes"))["/metered"] == "metered"
    page = json.loads(get(f"{gateway.http_url}/-/connections"))
    assert "http/1.1" in {each["protocol"] for each in page["listed"]}
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(f"{gateway.http_url}/nothing")


@pytest.fixture(scope="module")
def prometheus(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Prometheus server with the configuration and alerts of docs/monitoring/, but shorter intervals."""
    binary = monitoring.program("prometheus")
    directory = tmp_path_factory.mktemp("prometheus")
    (port,) = free_ports(1)
    given = yaml.safe_load(monitoring.CONFIG.read_text())
    given["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    given["rule_files"] = [str(monitoring.MONITORING / name) for name in given["rule_files"]]
    given["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{gateway.http_port}"]}]
    config = directory / "prometheus.yml"
    config.write_text(yaml.safe_dump(given))
    command = [binary, f"--config.file={config}", f"--storage.tsdb.path={directory / 'tsdb'}"]
    with (directory / "prometheus.log").open("wb") as log:
        server = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=20)


def test_a_real_prometheus_scrapes_and_answers(traffic: None, prometheus: str) -> None:
    until(lambda: query(prometheus, 'up{job="mesh"}') == [({}, 1.0)], timeout_s=30)
    by_code = 'sum by (code) (mesh_replica_requests_total{application="metered",method=~"work|fail"})'
    expected = [({"code": "INTERNAL"}, float(FAILED_CALLS)), ({"code": "OK"}, float(OK_CALLS + 1))]
    assert until(lambda: query(prometheus, by_code)) == expected
    quantile = (
        "histogram_quantile(0.5, sum by (le) "
        '(mesh_handle_request_latency_seconds_bucket{application="metered",method="work"}))'
    )
    [(_, median_s)] = query(prometheus, quantile)
    assert 0 < median_s < 10
    targets = json.loads(get(f"{prometheus}/api/v1/targets"))["data"]["activeTargets"]
    assert [target["lastError"] for target in targets] == [""]


@pytest.mark.parametrize("expression", monitoring.panel_queries())
def test_every_query_of_the_dashboard_has_an_answer(traffic: None, prometheus: str, expression: str) -> None:
    assert until(lambda: query(prometheus, expression), timeout_s=30)


@pytest.mark.parametrize(("selector", "label"), monitoring.variable_queries())
def test_every_variable_of_the_dashboard_has_values(traffic: None, prometheus: str, selector: str, label: str) -> None:
    assert until(lambda: METERED[label] in {labels[label] for labels, _ in query(prometheus, selector)}, timeout_s=30)


def test_every_alert_is_evaluated_from_series_that_exist(traffic: None, prometheus: str) -> None:
    for rule in monitoring.alerts():
        for selector in monitoring.selectors(rule["expr"]):
            assert until(lambda name=selector.name: query(prometheus, name), timeout_s=30), selector.name
    names = {rule["alert"] for rule in monitoring.alerts()}
    until(lambda: {name for name, health in rules(prometheus).items() if health == "ok"} == names, timeout_s=30)


def rules(prometheus: str) -> dict[str, str]:
    """The health of each alert rule: unknown until it was evaluated, then ok or err."""
    (group,) = json.loads(get(f"{prometheus}/api/v1/rules"))["data"]["groups"]
    return {rule["name"]: rule["health"] for rule in group["rules"]}


def query(prometheus: str, expression: str) -> list[tuple[dict[str, str], float]]:
    """Labels (without the scrape's own) and value of each series; empty while the server starts."""
    url = f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    try:
        found = json.loads(get(url))["data"]["result"]
    except OSError:
        return []
    own = {"__name__", "instance", "job"}
    series = [({k: v for k, v in each["metric"].items() if k not in own}, float(each["value"][1])) for each in found]
    return sorted(series, key=lambda each: sorted(each[0].items()))


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        return str(response.read().decode())
