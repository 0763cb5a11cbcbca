"""mesh.application: a bound graph becomes one spec per deployment, with handles where applications were nested."""

import logging
import threading
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

from mesh.application import BuildRules, build, checked_route_prefix, claimed_route_prefix
from mesh.deployment import Application, deployment
from mesh.exceptions import MeshException
from mesh.options.deployments.autoscaling_policy import AutoscalingPolicy
from mesh.options.logging_options import LoggingConfig
from mesh.usercode import user_code
from mesh.v1 import control_pb2
from tests.unit.protos import shop_pb2_grpc


@dataclass(frozen=True)
class Handle:
    """Stands for mesh.handle.DeploymentHandle."""

    deployment_name: str
    app_name: str


class Model:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs


class Caller(Model): ...


class Called:
    def __call__(self) -> None: ...


class ModelOfCalled(Called): ...


class Box:
    def __init__(self, content: object) -> None:
        self.content = content


model = deployment(Model)
caller = deployment(Caller)


def built(application: Application, **options: Any) -> control_pb2.ApplicationSpec:
    place = {"name": options.pop("name", "app"), "route_prefix": options.pop("route_prefix", "/")}
    rules = {"make_handle": Handle, "version_of": lambda code, packed: "v", **options}
    return build(application, **place, rules=BuildRules(**rules))


def arguments(spec: control_pb2.ApplicationSpec, name: str) -> tuple[Any, ...]:
    found = next(deployment for deployment in spec.deployments if deployment.name == name)
    return user_code.unpack(found.code).init_args


def names(spec: control_pb2.ApplicationSpec) -> list[str]:
    return [deployment.name for deployment in spec.deployments]


def test_one_deployment_is_its_own_ingress() -> None:
    spec = built(model.options(num_replicas=2).bind(1), route_prefix="/m")
    assert (spec.name, spec.route_prefix, spec.ingress) == ("app", "/m", "Model")
    assert names(spec) == ["Model"]
    assert spec.deployments[0].options.num_replicas == 2
    assert spec.deployments[0].version.startswith("v-")
    assert arguments(spec, "Model") == (1,)


def test_deployments_without_logging_get_that_of_the_application() -> None:
    """One of their own wins (items 71, 237)."""
    own, of_app = LoggingConfig(log_level=10), LoggingConfig(log_level=30)
    spec = built(caller.options(logging_config=own).bind(model.bind()), logging_config=of_app)
    assert {each.name: each.options.logging.level for each in spec.deployments} == {"Model": 30, "Caller": 10}
    assert not built(model.bind()).deployments[0].options.HasField("logging")


def test_a_policy_of_the_application_is_for_deployments_without_one_of_their_own() -> None:
    """Those with a fixed number and with an external scaler keep it."""
    bounds = {"max_replicas": 9}
    scaled = model.options(autoscaling_config=bounds)
    own = scaled.options(name="Own", autoscaling_config={**bounds, "policy": "shop.scaling:own"})
    outside = scaled.options(name="Outside", autoscaling_config={**bounds, "external_scaler": True})
    policy = AutoscalingPolicy(policy_function="shop.scaling:all")
    spec = built(caller.bind(scaled.bind(), own.bind(), outside.bind()), autoscaling_policy=policy)
    policies = {each.name: each.options.autoscaling.policy for each in spec.deployments}
    assert {name: (each.function, each.is_of_application) for name, each in policies.items()} == {
        "Model": ("shop.scaling:all", True),
        "Own": ("shop.scaling:own", False),
        "Outside": ("", False),
        "Caller": ("", False),
    }


def test_a_policy_of_an_application_needs_a_deployment_that_autoscales() -> None:
    policy = AutoscalingPolicy(policy_function="shop.scaling:all")
    with pytest.raises(ValueError, match="'app' has an autoscaling_policy and no deployment for it"):
        built(model.bind(), autoscaling_policy=policy)


def test_each_deployment_knows_whom_it_was_bound_to() -> None:
    """The order in which deployments stop comes from here (item 61)."""
    shared = model.bind()
    middle = caller.options(name="Middle").bind(shared)
    spec = built(caller.bind([middle], box=Box(shared)))
    callees = {deployment.name: list(deployment.callees) for deployment in spec.deployments}
    assert callees == {"Caller": ["Middle", "Model"], "Middle": ["Model"], "Model": []}


@pytest.mark.parametrize(
    ("nest", "dig"),
    [
        (lambda app: app, lambda got: got),
        (lambda app: [app], lambda got: got[0]),
        (lambda app: {"key": (app,)}, lambda got: got["key"][0]),
        (lambda app: Box([app]), lambda got: got.content[0]),
        (lambda app: Box(Box(app)), lambda got: got.content.content),
    ],
)
def test_a_nested_application_arrives_as_a_handle(nest: Any, dig: Any) -> None:
    """Applications are found at any depth of the arguments (item 96)."""
    spec = built(caller.bind(nest(model.bind())))
    assert names(spec) == ["Model", "Caller"]
    assert spec.ingress == "Caller"
    assert dig(arguments(spec, "Caller")[0]) == Handle("Model", "app")


def test_keyword_arguments_are_searched_too() -> None:
    """An application may be a keyword argument (item 96)."""
    spec = built(caller.bind(inner=model.bind()))
    assert user_code.unpack(spec.deployments[1].code).init_kwargs == {"inner": Handle("Model", "app")}


def test_the_same_application_bound_twice_is_one_deployment() -> None:
    """One object is one deployment, however often it is bound (item 97)."""
    shared = model.bind()
    spec = built(caller.bind(shared, model.options(name="Other").bind(shared)))
    assert names(spec) == ["Model", "Other", "Caller"]
    assert arguments(spec, "Caller") == (Handle("Model", "app"), Handle("Other", "app"))
    assert arguments(spec, "Other") == (Handle("Model", "app"),)


def test_two_bindings_of_one_deployment_are_two_and_numbered_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Each `.bind()` makes a deployment of its own (item 97)."""
    with caplog.at_level(logging.WARNING, "mesh"):
        spec = built(caller.bind(model.bind(0), model.bind(1), model.bind(2)))
    assert names(spec) == ["Model", "Model_1", "Model_2", "Caller"]
    assert [arguments(spec, name) for name in names(spec)[:3]] == [(0,), (1,), (2,)]
    assert [record.args[2] for record in caplog.records if isinstance(record.args, tuple)] == ["Model_1", "Model_2"]


def test_a_number_that_is_a_deployment_s_own_name_is_skipped() -> None:
    """A number is never taken twice (item 97)."""
    spec = built(caller.bind(model.options(name="Model_1").bind(), model.bind(), model.bind()))
    assert names(spec) == ["Model_1", "Model", "Model_2", "Caller"]


def test_an_ingress_named_like_a_callee_is_the_one_renamed() -> None:
    """Names are given to the called before their callers (item 97)."""
    spec = built(model.bind(model.bind()))
    assert (names(spec), spec.ingress) == (["Model", "Model_1"], "Model_1")


def test_a_cycle_is_refused() -> None:
    loop: list[Application] = []
    app = model.bind(loop)
    loop.append(app)
    with pytest.raises(ValueError, match="must not form a cycle"):
        built(app)


def test_arguments_that_cannot_be_pickled_are_a_type_error_naming_the_deployment() -> None:
    """The error names the deployment at fault, not the ingress (item 75)."""
    with pytest.raises(TypeError, match="arguments bound to Model"):
        built(caller.bind(model.bind(threading.Lock())))


def test_a_deployment_s_own_version_is_kept() -> None:
    """A version that the user gives replaces the generated one (C2)."""
    with pytest.warns(DeprecationWarning, match="version"):
        versioned = model.options(version="v7")
    versions = [each.version.partition("-")[0] for each in built(caller.bind(versioned.bind())).deployments]
    assert versions == ["v7", "v"]


@pytest.mark.parametrize("name", ["", None, 3])
def test_an_application_needs_a_name(name: Any) -> None:
    """An empty name, or one that is not a string, is refused (item 63)."""
    with pytest.raises(MeshException, match="Application name must be a non-empty string"):
        built(model.bind(), name=name)


@pytest.mark.parametrize("prefix", ["", "x", "/x/", "//", "/{id}", "/x}"])
def test_bad_route_prefixes_are_refused(prefix: str) -> None:
    """A prefix has one form only (item 65)."""
    with pytest.raises(ValueError, match="route_prefix"):
        checked_route_prefix(prefix)


@pytest.mark.parametrize(("prefix", "stored"), [("/", "/"), ("/a/b", "/a/b"), (None, "")])
def test_good_route_prefixes_are_stored(prefix: str | None, stored: str) -> None:
    """None is stored as no prefix (item 65)."""
    assert checked_route_prefix(prefix) == stored


@pytest.mark.parametrize(
    ("ingress", "default"),
    [(Model, ""), (shop_pb2_grpc.ShopServicer, ""), (Called, "/"), (ModelOfCalled, "/"), (len, "/")],
)
def test_the_default_prefix_is_for_an_ingress_that_can_be_called(ingress: Any, default: str) -> None:
    """Applications that serve gRPC only do not compete for `/`; any other prefix is theirs (items 65, 67)."""
    application = deployment(ingress).options(name="Ingress").bind()
    assert claimed_route_prefix(application, "/") == default
    assert claimed_route_prefix(application, "/shop") == "/shop"
    assert claimed_route_prefix(application, None) == ""
    with pytest.raises(ValueError, match="must start with"):
        claimed_route_prefix(application, "shop")


class Shop(shop_pb2_grpc.ShopServicer):  # type: ignore[misc]
    def __init__(self, *callees: Any) -> None: ...

    def Price(self, request: Any, context: Any) -> Any: ...

    def Count(self, request: Any, context: Any) -> Any: ...


def test_the_ingress_names_its_grpc_methods() -> None:
    """Methods come from the servicer that the class inherits (item 211)."""
    spec = built(deployment(Shop).bind())
    assert [method.full_name for method in spec.deployments[0].grpc_methods] == ["/mesh.tests.Shop/Price"]


def test_the_application_brings_the_descriptors_of_its_services() -> None:
    """Gateways speak JSON for them and describe them without the user's code (item 222)."""
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(built(deployment(Shop).bind()).descriptors).file
    assert {service.name for service in file.service} == {"Shop", "Stock"}
    assert built(deployment(Model).bind()).descriptors == b""


def test_servicer_functions_reach_only_the_ingress() -> None:
    """Deployments behind the ingress serve no client (items 55, 211)."""
    add = shop_pb2_grpc.add_StockServicer_to_server
    shop = deployment(Shop)
    spec = built(shop.options(name="Front").bind(shop.bind()), servicer_functions=(add,))
    inner, front = spec.deployments
    assert {method.full_name for method in front.grpc_methods} == {
        "/mesh.tests.Shop/Price",
        "/mesh.tests.Stock/Price",
        "/mesh.tests.Stock/Count",
    }
    assert {method.full_name for method in front.grpc_methods if method.is_idempotent} == {
        "/mesh.tests.Stock/Price",
        "/mesh.tests.Stock/Count",
    }
    assert not inner.grpc_methods
    assert user_code.unpack(front.code).servicer_functions == (add,)
    assert user_code.unpack(inner.code).servicer_functions == ()
