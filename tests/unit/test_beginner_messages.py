"""Mistakes of a first hour that no type checker was asked about: each message says what to write instead."""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mesh
from examples.weather import weather_pb2_grpc
from mesh.cli.run_target import read_target
from mesh.declarative.config_file import read_config
from mesh.declarative.import_path import import_attribute, load_application, parse_import_path
from mesh.declarative.yaml_positions import ConfigError
from mesh.options.gateway import gateway_options
from mesh.settings import settings
from mesh.testing import grpc_context


class Model:
    def __init__(self, size: int = 1) -> None:
        self.size = size

    async def grow(self, by: int) -> int:
        return self.size + by


model: Any = mesh.deployment(Model)
app: Any = model.bind()


def says(kind: type[Exception], mistake: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        mistake()
    return str(caught.value)


# ---- Deploying -------------------------------------------------------------------------------------------------------


def test_a_name_in_the_place_of_blocking() -> None:
    """`blocking` is the second parameter, as in Ray Serve: the program waited, with another name (item 70)."""
    run: Any = mesh.run
    assert says(TypeError, lambda: run(app, "shop")) == (
        "blocking must be True or False, got 'shop'. Write name='shop' for a name."
    )
    assert says(TypeError, lambda: run(app, 1)) == "blocking must be True or False, got 1."


def test_a_bind_that_is_not_called() -> None:
    """Its constructor would have got a bound method (item 94)."""
    expected = "Model.bind(): an argument is Model.bind itself. Call it: Model.bind(...)."
    assert says(TypeError, lambda: model.bind(model.bind)) == expected
    assert says(TypeError, lambda: model.bind([model.bind])) == expected


@pytest.mark.parametrize(
    ("mistake", "advice"),
    [
        (lambda: app.options(num_replicas=2), ": options come before bind. Write deployment.options(...).bind(...)"),
        (
            lambda: app.bind(),
            ": it is bound already. Hand it to mesh.run(app), or to the bind(...) of another deployment",
        ),
        (lambda: app.run(), ": write mesh.run(app)"),
        (lambda: app.nothing, "'Application' object has no attribute 'nothing'"),
        (lambda: model.deploy(), ": write mesh.run(deployment.bind(...))"),
    ],
)
def test_what_applications_and_deployments_do_not_have(mistake: Callable[[], object], advice: str) -> None:
    assert says(AttributeError, mistake).endswith(advice)


def test_a_stub_in_the_place_of_a_servicer() -> None:
    """It asked for the argument `channel`."""
    mine = type("Mine", (weather_pb2_grpc.WeatherStub,), {})
    for code in (mine, weather_pb2_grpc.WeatherStub):
        assert says(TypeError, lambda code=code: mesh.deployment(code)) == (  # type: ignore[misc]
            "WeatherStub is for clients. Inherit WeatherServicer, and write its methods."
        )


@pytest.mark.parametrize(
    ("methods", "wrong"),
    [
        ({}, "Mine inherits WeatherServicer and writes none of its methods: "),
        ({"forecast": None}, "Mine writes methods in another spelling than the .proto: forecast is not Forecast."),
    ],
)
def test_a_servicer_that_serves_nothing(methods: dict[str, Any], wrong: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its clients got UNIMPLEMENTED, and advice to inherit what it inherits (item 213)."""

    async def answer(self: object, request: object, context: object) -> None: ...

    mine = type("Mine", (weather_pb2_grpc.WeatherServicer,), dict.fromkeys(methods, answer))
    with caplog.at_level(logging.WARNING, "mesh"):
        mesh.run(mesh.deployment(mine).bind(), name="mine", _local_testing_mode=True)
        mesh.delete("mine")
    (line,) = [record.getMessage() for record in caplog.records if "Mine" in record.getMessage()]
    assert line.startswith(f"application 'mine': {wrong}")
    assert line.endswith("Calls of such methods are UNIMPLEMENTED.")


def test_a_servicer_without_a_mistake_gives_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(self: object, request: object, context: object) -> None: ...

    mine = type("Mine", (weather_pb2_grpc.WeatherServicer,), {"Forecast": answer, "helper": answer})
    with caplog.at_level(logging.WARNING, "mesh"):
        mesh.run(mesh.deployment(mine).bind(), name="mine", _local_testing_mode=True)
        mesh.delete("mine")
    assert not [record for record in caplog.records if "Mine" in record.getMessage()]


# ---- Classes ---------------------------------------------------------------------------------------------------------


def test_a_reconfigure_without_a_configuration() -> None:
    """It failed when a replica started."""

    class Tuned:
        def reconfigure(self) -> None: ...

    assert says(TypeError, lambda: mesh.deployment(Tuned)) == (
        "Tuned.reconfigure takes no configuration. Write `def reconfigure(self, config)`."
    )


def test_a_loader_without_a_model_id() -> None:
    """Its object was taken for the model id, at the first call."""

    async def load(self: object) -> None: ...

    multiplexed: Any = mesh.multiplexed
    assert "a method of two; test_a_loader_without_a_model_id.<locals>.load has 1." in says(
        TypeError, lambda: multiplexed(load)
    )
    assert says(TypeError, lambda: multiplexed(max_num_models_per_replica=2)(len)) == (
        "@mesh.multiplexed needs an `async def` function, got <built-in function len>."
    )


@pytest.mark.parametrize("method", ["set_trailing_metadata", "send_initial_metadata"])
def test_metadata_that_are_not_pairs(method: str) -> None:
    """Python said: not enough values to unpack. A dict with a key of two letters was sent as a pair of them."""
    give: Any = getattr(grpc_context(), method)
    assert says(TypeError, lambda: give({"id": "7"})) == (
        "metadata are pairs, not a dict: write tuple(metadata.items())"
    )
    assert says(TypeError, lambda: give(("id", "7"))) == "metadata are pairs: write [(key, value)], not ('id', '7')"


# ---- Calls -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "use",
    [
        lambda response: response + 1,
        lambda response: 1 + response,
        lambda response: response["celsius"],
        lambda response: response < 3,
        int,
        float,
        lambda response: operator.index(response),
    ],
)
def test_a_response_that_is_not_awaited_is_no_value(use: Callable[[Any], object]) -> None:
    handle = mesh.run(app, name="model", _local_testing_mode=True)
    response = handle.grow.remote(2)
    assert says(TypeError, lambda: use(response)) == (
        "A DeploymentResponse is not the value that the method returned: await it, or ask for its result()."
    )
    assert response.result(timeout_s=10) == 3
    assert bool(response)
    assert response == response
    assert response != 3
    mesh.delete("model")


def test_a_timeout_of_another_library() -> None:
    handle = mesh.run(app, name="model", _local_testing_mode=True)
    result: Any = handle.grow.remote(2).result
    assert says(TypeError, lambda: result(timeout=5)) == (
        "DeploymentResponse.result() got an unexpected keyword argument 'timeout'. Did you mean 'timeout_s'?"
    )
    assert result(timeout_s=10) == 3
    mesh.delete("model")


# ---- Import paths ----------------------------------------------------------------------------------------------------


def test_the_path_of_a_file_in_the_place_of_a_module() -> None:
    for path in ("shop/app.py:main", "./shop/app.py:main", "shop/app:main"):
        assert says(ValueError, lambda path=path: parse_import_path(path)) == (  # type: ignore[misc]
            f"{path!r} is not MODULE:APP: write shop.app:main."
        )
    assert says(ValueError, lambda: parse_import_path("../app.py:main")).endswith("write for instance shop.app:app.")


def test_a_package_in_the_place_of_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "beginners_shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "app.py").write_text("app = object()\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert says(ValueError, lambda: import_attribute("beginners_shop:app")).endswith(
        " Applications in it: none. Did you mean beginners_shop.app:app?"
    )
    assert says(TypeError, lambda: load_application("beginners_shop.app:app", {})).startswith(
        "beginners_shop.app:app is an object, not an application: "
    )


# ---- Files -----------------------------------------------------------------------------------------------------------

APP = "applications:\n  - import_path: shop.app:app\n"


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        (
            f"{APP}    num_replicas: 2",
            "mesh.yaml:3:5: applications[0].num_replicas: is an option of a deployment: write it below `deployments:` "
            "of its application, beside `- name: ...`.",
        ),
        (
            f"{APP}max_ongoing_requests: 2",
            "mesh.yaml:3:1: max_ongoing_requests: is an option of a deployment: write it below `deployments:` of its "
            "application, beside `- name: ...`.",
        ),
        (
            f"{APP}    deployments: [{{name: Shop, num_cpus: 2}}]",
            "mesh.yaml:3:32: applications[0].deployments[0].num_cpus: is one of ray_actor_options: write "
            "`ray_actor_options: {num_cpus: ...}`.",
        ),
        (
            f"{APP}route_prefix: /shop",
            "mesh.yaml:3:1: route_prefix: belongs to an application: write it below `applications:`, beside its "
            "import_path.",
        ),
        (
            "- import_path: shop.app:app",
            "mesh.yaml:1:1: must be a mapping of fields to values, got [{'import_path': 'shop.app:app'}]. Write "
            "`applications:` above the list.",
        ),
        (
            "applications:\n\t- import_path: shop.app:app",
            "mesh.yaml:2:1: this is not YAML: while scanning for the next token found character '\\t' that cannot "
            "start any token. Indent with spaces.",
        ),
        (
            f"grpc_options:\n  port: 9000\nhttp_options:\n  port: 9000\n{APP}",
            "mesh.yaml:4:9: http_options.port: is 9000, as that of grpc_options: every port speaks gRPC and HTTP, so "
            "one of them is enough. Let the other one be None, in a file null.",
        ),
    ],
)
def test_what_stands_in_the_wrong_place_of_a_file(text: str, advice: str) -> None:
    """Each with its line and column (item 248)."""
    assert says(ConfigError, lambda: read_config(text, "mesh.yaml")) == advice


def test_ports_of_hosts_that_do_not_meet_may_have_one_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """And port 0, any free one, is never the same."""
    gateway = replace(settings().gateway, host="10.0.0.1")
    monkeypatch.setattr(gateway_options, "settings", lambda: replace(settings(), gateway=gateway))
    assert gateway_options.parse(None, {"port": 9000}, {"port": 9000}).http.port == 9000
    assert gateway_options.parse(None, {"port": 0, "host": "10.0.0.1"}, {"port": 0}).grpc.port == 0
    assert gateway_options.parse(None, {"port": None, "host": "10.0.0.1"}, {"port": 9000}).http.port is None
    with pytest.raises(ValueError, match="is 9000, as that of grpc_options"):
        gateway_options.parse(None, {"port": 9000, "host": "10.0.0.1"}, {"port": 9000})


def test_a_directory_in_the_place_of_a_file(tmp_path: Path) -> None:
    assert says(ValueError, lambda: read_target(str(tmp_path), (), ".", {})) == (
        f"{tmp_path} is a directory: name a configuration file in it, or MODULE:APP."
    )
