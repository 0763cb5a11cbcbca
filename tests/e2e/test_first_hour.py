"""The first hour of a user: the service of README.md, types, tests, a file, updates under load, then failures.

Everything goes through files and the `mesh` command, on a Ray of its own. Each failure is looked up afterwards, by
log, status and metric. tests/fresh_install.py has the installation, tests/unit/test_types.py the types of the service.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from examples.weather import weather_pb2, weather_pb2_grpc
from tests.documents import ROOT, blocks_of
from tests.e2e import leftovers, metrics
from tests.e2e.conftest import Gateway
from tests.e2e.load import Load
from tests.e2e.waiting import until

pytestmark = pytest.mark.timeout(300)

OWN_RAY = """
import ray, sys
ray.init(address="local", namespace="mesh", num_cpus=8, include_dashboard=False, log_to_driver=False,
         logging_level="warning", object_store_memory=100_000_000, _temp_dir=sys.argv[1])
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""

SERVICE = """
import asyncio
import logging
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc
import mesh
from examples.weather import weather_pb2, weather_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
GREETING = "first"


class Weather(weather_pb2_grpc.WeatherServicer):
    def __init__(self) -> None:
        self.celsius = 0.0

    def reconfigure(self, config: dict[str, float]) -> None:
        if config["celsius"] < -273.15:
            raise ValueError("colder than possible")
        self.celsius = config["celsius"]

    async def Forecast(self, request: weather_pb2.ForecastRequest, context: Context) -> weather_pb2.ForecastReply:
        logging.info("asked for %s", request.city)
        match request.city:
            case "atlantis":
                raise LookupError("atlantis has sunk")
            case "pompeii":
                os._exit(3)
        return weather_pb2.ForecastReply(city=GREETING, celsius=self.celsius)

    async def Watch(
        self, request: weather_pb2.WatchRequest, context: Context
    ) -> AsyncIterator[weather_pb2.ForecastReply]:
        yield weather_pb2.ForecastReply(city=GREETING)
        await asyncio.Event().wait()


weather = mesh.deployment(Weather, health_check_period_s=0.5, graceful_shutdown_timeout_s=2)
app = weather.bind()
"""

FILE = """\
grpc_options: {{port: 0}}
http_options: {{port: 0}}
applications:
  - name: shop
    import_path: shop.app:app
    deployments:
      - name: Weather
        num_replicas: {replicas}
        ray_actor_options: {{num_cpus: 0.1}}
        user_config: {{celsius: {celsius}}}
"""

IDS = {"application": "shop", "deployment": "Weather"}


@dataclass(frozen=True)
class Project:
    """The user's directory, and a shell in it."""

    directory: Path
    environment: dict[str, str]

    def start(self, program: str, *arguments: str, stderr: int = subprocess.STDOUT) -> subprocess.Popen[str]:
        """One of those that are installed beside Python."""
        return subprocess.Popen(
            [Path(sys.executable).with_name(program), *arguments],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    def does(self, program: str, *arguments: str, status: int = 0, stderr: int = subprocess.STDOUT) -> str:
        """What the program prints, which ends with this status."""
        with self.start(program, *arguments, stderr=stderr) as process:
            try:
                shown, _ = process.communicate(timeout=100)
            finally:
                process.kill()
        assert process.returncode == status, shown
        return shown

    def mesh(self, *arguments: str, status: int = 0) -> str:
        return self.does("mesh", *arguments, status=status)

    def deploy(self, replicas: int = 1, celsius: float = 24.5, status: int = 0) -> str:
        (self.directory / "mesh.yaml").write_text(FILE.format(replicas=replicas, celsius=celsius))
        return self.mesh("deploy", "mesh.yaml", status=status)

    def write(self, service: str) -> None:
        (self.directory / "shop" / "app.py").write_text(service)


@pytest.fixture(scope="module")
def project(cluster: Path) -> Iterator[Project]:
    """With a private Ray, which the commands find in their environment."""
    # Short: Ray puts Unix sockets into it.
    root = Path(tempfile.mkdtemp(prefix="hour", dir=cluster.parent))
    mark = uuid.uuid4().hex
    project = Project(root / "project", {**os.environ, "PYTHONPATH": str(ROOT), leftovers.MARK: mark})
    (project.directory / "shop").mkdir(parents=True)
    shutil.copytree(ROOT / "examples", project.directory / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root)
        owner = subprocess.Popen(
            [sys.executable, "-c", OWN_RAY, str(root / "ray")],
            env=project.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(until, lambda: not leftovers.processes_of_this_run(mark), timeout_s=30)
        stack.callback(owner.communicate, timeout=30)
        assert owner.stdout is not None
        project.environment["RAY_ADDRESS"] = next(line.strip() for line in owner.stdout if line[:1].isdigit())
        yield project
        project.mesh("shutdown", "--yes")


def service_of_readme() -> str:
    """Without the client, as README.md says."""
    block, *_ = blocks_of(ROOT / "README.md", "python")
    service, _, _ = block.text.partition("mesh.run(")
    return f"{service}app = weather.bind(model.bind())\n"


@dataclass(frozen=True)
class Shop:
    """The application of mesh.yaml, as its clients and its operator see it."""

    project: Project
    gateway: Gateway
    channel: grpc.Channel

    @property
    def stub(self) -> Any:
        return weather_pb2_grpc.WeatherStub(self.channel)

    def forecast(self, city: str = "midtown", request_id: str = "", timeout_s: float = 20) -> Any:
        metadata = (("request_id", request_id),) if request_id else None
        return self.stub.Forecast(weather_pb2.ForecastRequest(city=city), metadata=metadata, timeout=timeout_s)

    def forecast_over_http(self, timeout_ms: int) -> tuple[int, Any]:
        """By Connect: the client waits for the gateway to keep the deadline. One of gRPC has a timer of its own, which
        comes first on a busy machine."""
        headers = {"connect-protocol-version": "1", "connect-timeout-ms": str(timeout_ms)}
        url = f"{self.gateway.http_url}/weather.Weather/Forecast"
        answer = httpx.post(url, json={"city": "midtown"}, headers=headers, timeout=20)
        return answer.status_code, answer.json()

    def fails(self, call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        return caught.value.code(), caught.value.details()

    def metric(self, name: str, **labels: str) -> float:
        return metrics.value(self.gateway, name, application="shop", **labels)

    def replica_ids(self) -> set[str]:
        (application,) = status_of(self.project)["applications"]
        (deployment,) = application["deployments"]
        return {replica["replica_id"] for replica in deployment["replicas"]}


def status_of(project: Project) -> Any:
    """Apart from the warnings of old versions of Ray."""
    return json.loads(project.does("mesh", "status", "--json", stderr=subprocess.DEVNULL))


@pytest.fixture(scope="module")
def shop(project: Project) -> Iterator[Shop]:
    project.write(SERVICE)
    shown = project.deploy()
    assert "shop: RUNNING" in shown
    (found,) = status_of(project)["gateways"]
    gateway = Gateway(*(int(found[each].rpartition(":")[2]) for each in ("grpc_address", "http_address")))
    with grpc.insecure_channel(gateway.grpc_address) as channel:
        yield Shop(project, gateway, channel)


def test_the_service_of_readme_runs_until_it_is_asked_to_end(project: Project) -> None:
    project.write(service_of_readme())
    with project.start("mesh", "run", "shop.app:app", "--grpc-port", "0", "--http-port", "0") as run:
        try:
            assert run.stdout is not None
            began = "".join(iter(run.stdout.readline, "Running; Ctrl-C ends it.\n"))
            address = re.search(r"gRPC on (\S+)", began)
            assert address, began
            with grpc.insecure_channel(address[1]) as channel:
                stub = weather_pb2_grpc.WeatherStub(channel)
                reply: Any = stub.Forecast(weather_pb2.ForecastRequest(city="midtown"), timeout=20)
            assert reply.celsius == 24.5
            run.send_signal(signal.SIGTERM)
            ended, _ = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == 0, ended
    assert "Stopping ..." in ended


def test_the_unit_tests_of_docs_testing_pass(project: Project) -> None:
    """Those that need no mesh; test_docs.py runs all of them."""
    blocks = blocks_of(ROOT / "docs" / "testing.md", "python")
    (project.directory / "test_weather.py").write_text("\n\n".join(block.text for block in blocks))
    options = ["-q", "-p", "no:cacheprovider", "-k", "not client and not handles"]
    assert "4 passed" in project.does("pytest", *options, "test_weather.py")


def test_updates_under_load_fail_no_call(shop: Shop) -> None:
    """More replicas, another `user_config`, then other code."""
    with Load(*[shop.forecast] * 2) as load:
        load.until_answered(20)
        shop.project.deploy(replicas=2, celsius=30.0)
        load.until_answered(20)
        assert load.answers[-1].celsius == 30.0
        shop.project.write(SERVICE.replace('"first"', '"second"'))
        shop.project.deploy()
        load.until_answered(20)
    assert not load.errors
    assert (load.answers[0].city, load.answers[-1].city) == ("first", "second")
    assert load.answers[-1].celsius == 24.5


def test_an_exception_is_found_by_its_request(shop: Shop) -> None:
    before = shop.metric("mesh_gateway_grpc_requests_total", code="INTERNAL")
    failed = shop.fails(lambda: shop.forecast("atlantis", "hour-1"))
    assert failed == (grpc.StatusCode.INTERNAL, "LookupError: atlantis has sunk")
    logs = shop.project.mesh("logs", "--request", "hour-1")
    assert "root: asked for atlantis" in logs
    assert "/weather.Weather/Forecast failed: LookupError: atlantis has sunk" in logs
    assert re.search(r'File ".*shop/app.py", line \d+, in Forecast', logs)
    assert "RUNNING" in shop.project.mesh("status", "--name", "shop")
    until(lambda: shop.metric("mesh_gateway_grpc_requests_total", code="INTERNAL") == before + 1)


def test_a_replica_that_crashes_is_found_after_its_replacement(shop: Shop) -> None:
    (crashed,) = shop.replica_ids()
    code, details = shop.fails(lambda: shop.forecast("pompeii", "hour-2"))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "may have been executed" in details
    until(lambda: shop.metric("mesh_replica_restarts_total", reason="died") == 1)
    shown = shop.project.mesh("status", "--wait", "30", "--replicas")
    assert "1 restart; last ended: " in shown
    assert re.search(rf"{crashed} +DIED +version .* ago, node \w+; Its process exited", shown)
    logs = shop.project.mesh("logs", "shop", "--replica", crashed)
    assert "root: asked for pompeii" in logs
    assert f"replica shop/Weather#{crashed} ended: Its process exited" in logs
    assert shop.forecast().celsius == 24.5


def test_a_rejected_user_config_is_named_and_corrected(shop: Shop) -> None:
    assert "ValueError: colder than possible" in shop.project.deploy(celsius=-300.0, status=1)
    shown = shop.project.mesh("status", "--name", "shop", status=1)
    assert "DEPLOY_FAILED" in shown
    assert re.search(r'File ".*shop/app.py", line \d+, in reconfigure', shown)
    assert "colder than possible" in shop.project.mesh("logs", "shop", "Weather")
    assert shop.metric("mesh_deployment_status", deployment="Weather", status="DEPLOY_FAILED") == 1
    shop.project.deploy()
    shop.project.mesh("status")
    assert shop.forecast().celsius == 24.5


def test_a_busy_replica_says_what_calls_wait_for(shop: Shop) -> None:
    """Idle streams hold all places."""
    streams = [shop.stub.Watch(weather_pb2.WatchRequest(), timeout=60) for _ in range(5)]
    assert len([next(stream) for stream in streams]) == 5
    waiting = shop.stub.Forecast.future(weather_pb2.ForecastRequest(), timeout=60)
    until(lambda: shop.metric("mesh_handle_queued_requests") == 1)
    assert shop.metric("mesh_deployment_places") == shop.metric("mesh_replica_ongoing_requests") == 5
    until(lambda: "5 of 5 busy, 1 waiting" in shop.project.mesh("status"), timeout_s=30)
    code, _ = shop.fails(lambda: shop.forecast(timeout_s=1))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    status, answer = shop.forecast_over_http(timeout_ms=1_000)
    assert (status, answer["code"]) == (504, "deadline_exceeded")
    assert "for a free place of shop/Weather: 5 of 5 calls busy on 1 replica" in answer["message"]
    for stream in streams:
        stream.cancel()
    assert waiting.result().celsius == 24.5


def test_an_unknown_method_names_those_that_exist(shop: Shop) -> None:
    code, details = shop.fails(lambda: shop.channel.unary_unary("/weather.Weather/Forcast")(b"", timeout=20))
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert "Forecast" in details
    unknown = metrics.value(shop.gateway, "mesh_gateway_grpc_requests_total", code="UNIMPLEMENTED")
    assert unknown == 1


def test_a_file_with_mistakes_changes_nothing(shop: Shop) -> None:
    before = shop.replica_ids()
    file = shop.project.directory / "mesh.yaml"
    wrong = file.read_text().replace("num_replicas: 1", "num_replica: 3").replace("num_cpus: 0.1", "num_cpus: much")
    file.write_text(wrong)
    shown = shop.project.mesh("deploy", "mesh.yaml", status=1)
    assert "2 mistakes in mesh.yaml" in shown
    assert (
        "mesh.yaml:8:9: applications[0].deployments[0].num_replica: no such field: did you mean num_replicas?" in shown
    )
    assert "mesh.yaml:9:39: applications[0].deployments[0].ray_actor_options.num_cpus" in shown
    assert shop.replica_ids() == before
    assert "num_replicas: 1" in shop.project.mesh("config")
