"""mesh.api: start, run and what they refuse, on a fake cluster (items 52–76)."""

import inspect
import json
import logging
import threading
from typing import Any

import pytest

import mesh
from mesh import api
from mesh.client import port_check, rollout_wait
from mesh.cluster.keys import CONTROLLER_NAME
from mesh.exceptions import MeshException
from mesh.options.gateway.gateway_options import parse
from mesh.options.gateway.start_keywords import START_KEYWORDS
from mesh.status import MeshStatus
from mesh.v1 import control_pb2
from tests.unit.fakes.mesh_fakes import FakeCluster, client_settings
from tests.unit.protos import shop_pb2_grpc


@mesh.deployment
class Model:
    def __init__(self, *args: Any) -> None: ...

    def __call__(self) -> None: ...


# ---- start -----------------------------------------------------------------------------------------------------------


def test_start_brings_up_the_gateways(cluster: FakeCluster) -> None:
    """`start` returns when the gateways are healthy (item 52)."""
    mesh.start(grpc_options={"port": 9001})
    assert cluster.controller.reply.gateway_options.grpc_port == 9001
    assert mesh.status().proxies == {"n1": "HEALTHY"}


def test_start_without_gateways_waits_for_none(cluster: FakeCluster) -> None:
    """`Disabled` means no gateway (item 53)."""
    mesh.start(proxy_location="Disabled")
    assert mesh.status() == MeshStatus()


def test_a_start_beside_another_waits_for_the_same_gateways(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second `start` waits for the gateways of the first and may time out too (items 52, 57)."""
    controller = cluster.run_controller()
    controller.reply.gateways[0].status = "STARTING"
    monkeypatch.setattr(rollout_wait, "settings", lambda: client_settings(gateways_timeout_s=0.0))
    with pytest.raises(TimeoutError, match="STARTING"):
        mesh.start()


def test_a_second_start_connects_and_changes_what_it_names(
    cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Options that gateways cannot get while they run are ignored with a warning that lists them (item 52)."""
    mesh.start(http_options={"port": 8001})
    first = cluster.controller
    with caplog.at_level(logging.WARNING, "mesh"):
        mesh.start()
        mesh.start(http_options={"port": 8002, "host": "0.0.0.0"})
        assert not caplog.records
        mesh.start(
            grpc_options={"processes": 2},
            logging_config={"log_level": "DEBUG"},
            controller_options={"runtime_env": {"env_vars": {"ZONE": "a"}}},
        )
    assert cluster.controller is first
    options = first.reply.gateway_options
    assert (options.http_host, options.http_port, options.grpc_port) == ("0.0.0.0", 8002, 9000)
    assert (options.processes, options.logging.level) == (2, logging.DEBUG)
    assert "ignored: controller_options." in caplog.text


def test_a_start_with_options_that_no_gateway_can_have_says_why_and_that_the_others_serve(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is that of the gateway (items 52, 57)."""
    mesh.start(http_options={"port": 8001})
    broken = control_pb2.GatewayStatus(node_id="n1", status="UNHEALTHY", revision=1, message="no file /tls.pem")

    def configure(options: control_pb2.GatewayOptions, expected: control_pb2.GatewayOptions) -> None:
        cluster.controller.reply.gateways_revision = 1
        cluster.controller.reply.gateways.add().CopyFrom(broken)

    monkeypatch.setattr(cluster.controller, "configure_gateways", configure)
    monkeypatch.setattr(rollout_wait, "settings", lambda: client_settings(gateways_failing_timeout_s=0.0))
    with pytest.raises(TimeoutError, match=r"new options \(node n1: no file /tls.pem\).*former ones serve on"):
        mesh.start(http_options={"ssl_certfile": "/tls.pem", "ssl_keyfile": "/tls.key"})
    mesh.start()


def test_a_start_is_heard_though_another_one_was_faster(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have found no mesh (item 52)."""

    def start_another(options: control_pb2.GatewayOptions, before: control_pb2.GatewayOptions | None = None) -> None:
        if before is None:
            cluster.run_controller(control_pb2.GatewayOptions(grpc_port=9000))

    monkeypatch.setattr(port_check, "require_free", start_another)
    mesh.start(grpc_options={"port": 9100})
    assert cluster.controller.reply.gateway_options.grpc_port == 9100


def test_the_rest_of_an_interrupted_shutdown_is_removed_before_a_start(cluster: FakeCluster) -> None:
    """A start after an unfinished shutdown finishes it first (item 60)."""
    cluster.run_controller().reply.is_shutting_down = True
    cluster.kv["controller/state"] = b"old"
    mesh.start()
    assert "controller/state" not in cluster.kv
    assert not cluster.controller.reply.is_shutting_down


@pytest.mark.parametrize(
    ("keywords", "error", "words"),
    [
        ({"http_host": "x"}, ValueError, r"http_options=\{'host'"),
        ({"http_port": 1}, ValueError, r"http_options=\{'port'"),
        ({"http_middlewares": []}, ValueError, "http_options"),
        ({"dashboard": True}, TypeError, "unexpected keyword argument 'dashboard'"),
        ({"proxy_location": "Somewhere"}, ValueError, "proxy_location"),
        ({"logging_config": {"encoding": "XML"}}, ValueError, "encoding must be TEXT or JSON"),
        ({"grpc_options": {"grpc_servicer_functions": ["nowhere.add_X_to_server"]}}, ModuleNotFoundError, "nowhere"),
        ({"grpc_options": {"grpc_servicer_functions": ["json.add_X_to_server"]}}, ValueError, "add_X_to_server"),
    ],
)
def test_wrong_options_are_found_before_anything_starts(
    cluster: FakeCluster, keywords: dict[str, Any], error: type[Exception], words: str
) -> None:
    """Wrong options raise before the cluster is touched (items 53, 55, 56)."""
    cluster.is_there = False
    with pytest.raises(error, match=words):
        mesh.start(**keywords)
    assert not cluster.is_there


# ---- run -------------------------------------------------------------------------------------------------------------


def test_run_starts_the_mesh_and_returns_the_ingress_handle(cluster: FakeCluster) -> None:
    """`run` starts the mesh where there is none and waits for the application (items 62, 66)."""
    cluster.is_there = False
    handle = mesh.run(Model.options(name="Front").bind(Model.bind()))
    assert (handle.deployment_name, handle.app_name) == ("Front", "default")
    (spec,) = cluster.controller.deployed
    assert (spec.name, spec.route_prefix, spec.ingress) == ("default", "/", "Front")


def test_run_takes_the_name_and_prefix(cluster: FakeCluster) -> None:
    """Name and prefix are stored, and None means no prefix (items 62, 65)."""
    mesh.run(Model.bind(), name="shop", route_prefix=None)
    (spec,) = cluster.controller.deployed
    assert (spec.name, spec.route_prefix) == ("shop", "")


def test_every_run_is_a_new_version(cluster: FakeCluster) -> None:
    """Running the same application again replaces its replicas (item 68)."""
    app = Model.bind()
    mesh.run(app)
    mesh.run(app)
    first, second = cluster.controller.deployed
    assert first.deployments[0].version != second.deployments[0].version


def test_run_uses_the_mesh_that_is_there(cluster: FakeCluster, caplog: pytest.LogCaptureFixture) -> None:
    controller = cluster.run_controller(parse("HeadOnly", {"port": 8123}, None).to_message())
    mesh.run(Model.bind())
    assert cluster.controller is controller
    assert not caplog.records


@pytest.mark.parametrize("target", [Model, object, None, "app"])
def test_only_bound_applications_can_be_run(cluster: FakeCluster, target: Any) -> None:
    """`run` takes the result of `.bind()` and nothing else (item 64)."""
    with pytest.raises(TypeError, match="bind"):
        mesh.run(target)


@pytest.mark.parametrize(
    ("keywords", "error", "words"),
    [
        ({"name": ""}, MeshException, "Application name must be a non-empty string"),
        ({"route_prefix": "x"}, ValueError, "route_prefix"),
        ({"_local_testing_mode": True, "blocking": True}, ValueError, "no ports"),
        ({"logging_config": {"level": 1}}, TypeError, "Did you mean 'log_level'"),
    ],
)
def test_wrong_arguments_are_found_before_anything_starts(
    cluster: FakeCluster, keywords: dict[str, Any], error: type[Exception], words: str
) -> None:
    """A wrong name or prefix raises before the cluster is touched (items 63, 65)."""
    with pytest.raises(error, match=words):
        mesh.run(Model.bind(), **keywords)
    assert not cluster.actors


def test_arguments_that_cannot_be_pickled_are_a_type_error(cluster: FakeCluster) -> None:
    """The error names the deployment whose arguments cannot be pickled (item 75)."""
    with pytest.raises(TypeError, match="arguments bound to Model"):
        mesh.run(Model.bind(threading.Lock()))


def test_arguments_that_cannot_be_pickled_are_refused_before_ray_starts(cluster: FakeCluster) -> None:
    """Also those of what is bound inside of them. Ray and the mesh would take seconds, and stay."""
    cluster.is_there = False
    inner = Model.options(name="Inner").bind(threading.Lock())
    for app in (Model.bind(threading.Lock()), Model.bind([inner, inner])):
        with pytest.raises(TypeError, match=r"arguments bound to Model cannot be pickled.*lock"):
            mesh.run(app)
        with pytest.raises(TypeError, match=r"arguments bound to Model cannot be pickled.*lock"):
            mesh.run_many([mesh.RunTarget(app)])
    assert (cluster.is_there, cluster.actors) == (False, {})


def test_a_failed_deployment_raises_its_message(cluster: FakeCluster) -> None:
    """`run` raises RuntimeError with the message of the deployment (item 66)."""
    cluster.run_controller().deploy_result = ("DEPLOY_FAILED", "Model: no such file")
    with pytest.raises(RuntimeError, match="Model: no such file"):
        mesh.run(Model.bind())


def test_run_without_waiting_returns_at_once(cluster: FakeCluster) -> None:
    """`_blocking=False` does not wait for the rollout (item 72)."""
    cluster.run_controller().deploy_result = ("DEPLOYING", "")
    assert api._run(Model.bind(), _blocking=False).app_name == "default"


def test_a_blocking_run_ends_with_the_interrupt(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is raised again (item 70)."""

    def interrupt(duration_s: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mesh.client.program_end.time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        mesh.run(Model.bind(), blocking=True)
    assert mesh.status().applications["default"].status == "RUNNING"


def test_servicer_functions_of_the_start_reach_the_ingress(cluster: FakeCluster) -> None:
    """An ingress serves services that only `start` named (item 55)."""

    @mesh.deployment
    class Shop:
        def Price(self, request: Any) -> Any: ...

    mesh.start(grpc_options={"grpc_servicer_functions": [shop_pb2_grpc.add_ShopServicer_to_server]})
    mesh.run(Shop.bind())
    (spec,) = cluster.controller.deployed
    assert [method.full_name for method in spec.deployments[0].grpc_methods] == ["/mesh.tests.Shop/Price"]


def test_a_later_start_names_services_for_what_is_deployed_after_it(cluster: FakeCluster) -> None:
    """One that does not name them leaves them as they are (items 52, 55)."""

    @mesh.deployment
    class Shop:
        def Price(self, request: Any) -> Any: ...

    mesh.start()
    mesh.run(Shop.bind())
    mesh.start(grpc_options={"grpc_servicer_functions": [shop_pb2_grpc.add_ShopServicer_to_server]})
    mesh.start(grpc_options={"enable_reflection": True})
    mesh.run(Shop.bind())
    before, after = (spec.deployments[0].grpc_methods for spec in cluster.controller.deployed)
    assert not before
    assert [method.full_name for method in after] == ["/mesh.tests.Shop/Price"]


def test_the_driver_s_runtime_env_is_the_default_of_its_deployments(cluster: FakeCluster) -> None:
    """The job's environment is inherited; a deployment's own entries win (item 101)."""
    cluster.job_runtime_env = {"working_dir": "gcs://x.zip", "env_vars": {"A": "1"}, "_ray_commit": "abc"}
    own = Model.options(name="Own", ray_actor_options={"runtime_env": {"env_vars": {"B": "2"}}})
    mesh.run(Model.bind(own.bind()))
    (spec,) = cluster.controller.deployed
    env = {each.name: json.loads(each.options.actor.runtime_env_json) for each in spec.deployments}
    assert env["Model"] == {"working_dir": "gcs://x.zip", "env_vars": {"A": "1"}}
    # As Ray itself merges them.
    assert env["Own"] == {"working_dir": "gcs://x.zip", "env_vars": {"A": "1", "B": "2"}}


def test_signatures_are_the_contract_s() -> None:
    """Parameters keep their names and order (items 52, 62, 76, 115, 127, 128)."""
    assert list(inspect.signature(mesh.start).parameters) == [
        "proxy_location", "http_options", "grpc_options", "logging_config", "tracing_config", "controller_options",
        "kwargs",
    ]  # fmt: skip
    assert tuple(inspect.signature(mesh.start).parameters)[:-1] == START_KEYWORDS
    assert tuple(inspect.signature(parse).parameters) == START_KEYWORDS
    assert list(inspect.signature(mesh.run).parameters) == [
        "target", "blocking", "name", "route_prefix", "logging_config", "_local_testing_mode",
        "autoscaling_policy",
    ]  # fmt: skip
    assert list(inspect.signature(mesh.multiplexed).parameters)[:2] == ["func", "max_num_models_per_replica"]
    assert list(inspect.signature(mesh.delete).parameters) == ["name", "_blocking"]
    assert list(inspect.signature(mesh.get_app_handle).parameters) == ["name"]
    assert list(inspect.signature(mesh.get_deployment_handle).parameters) == [
        "deployment_name", "app_name", "_check_exists",
    ]  # fmt: skip


def test_everything_public_is_there() -> None:
    assert all(hasattr(mesh, name) for name in mesh.__all__)
    assert CONTROLLER_NAME == "MESH_CONTROLLER"


# ---- run_many --------------------------------------------------------------------------------------------------------


def test_several_applications_are_run_in_one_step(cluster: FakeCluster) -> None:
    """Handles come back in the order of the targets (item 74)."""
    targets = [mesh.RunTarget(Model.bind(), name="a", route_prefix="/a"), mesh.RunTarget(Model.bind(), "b", "/b")]
    handles = mesh.run_many(targets)
    assert [each.name for each in cluster.controller.deployed] == ["a", "b"]
    assert [(each.deployment_name, each.app_name) for each in handles] == [("Model", "a"), ("Model", "b")]


def test_an_application_may_have_an_autoscaling_policy(cluster: FakeCluster) -> None:
    """In every form that a deployment's policy may have."""
    scaled = Model.options(autoscaling_config={"max_replicas": 9})
    mesh.run(scaled.bind(), autoscaling_policy={"policy_function": "shop.scaling:decide", "timeout_s": 2})
    mesh.run_many([mesh.RunTarget(scaled.bind(), autoscaling_policy="shop.scaling:decide")])
    policies = [each.deployments[0].options.autoscaling.policy for each in cluster.controller.deployed]
    assert [each.function for each in policies] == ["shop.scaling:decide"] * 2
    assert [each.timeout_s for each in policies] == [2, 5]
    with pytest.raises(ValueError, match=r"import path like \"package.module:function\""):
        mesh.run(scaled.bind(), autoscaling_policy="decide")


def test_run_many_needs_targets_and_checks_each(cluster: FakeCluster) -> None:
    """One wrong target means that none is deployed (item 74)."""
    with pytest.raises(ValueError, match="at least one RunTarget"):
        mesh.run_many([])
    with pytest.raises(TypeError, match="takes an application"):
        mesh.run_many([mesh.RunTarget(Model.bind(), "a"), mesh.RunTarget(Model, "b")])  # type: ignore[arg-type]
    assert not cluster.controller.deployed
