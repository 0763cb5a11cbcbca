"""What a replica logs, prints and raises is found afterwards, by application and by request (item 238)."""

import json
import logging
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner

import mesh
from mesh.cli import main
from mesh.cluster import ray_core
from tests.e2e.conftest import Deploy
from tests.e2e.gate import small
from tests.e2e.replicas import running
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

Handle = mesh.DeploymentHandle[Any]
_HEAD = re.compile(
    r"\S+ \S+ (?P<level>[A-Z]+) (replica|controller|gateway) ?(\w+/(?P<deployment>\w+)#\w+)?( \[.+?\])? (?P<rest>.*)"
)


@small()
class Tax:
    async def __call__(self, name: str) -> int:
        if name == "untaxed":
            raise LookupError("no tax on it")
        return 1


@small()
class Shop(shop_pb2_grpc.ShopServicer):
    def __init__(self, tax: Handle) -> None:
        self._tax = tax
        print("the shop opens")

    async def Price(self, request: Any, context: Any) -> Any:
        logging.getLogger("mine").info("asked for %s", request.name)
        print("printed", request.name)
        if request.name == "boom":
            raise ValueError("boom asked for")
        if request.name == "unknown":
            await context.abort(grpc.StatusCode.NOT_FOUND, "not here")
        await self._tax.remote(request.name)
        return request


@small()
class Mortal:
    def __init__(self) -> None:
        print("I live")

    def reconfigure(self, config: dict[str, bool]) -> None:
        if config["is_bad"]:
            raise ValueError("no config")

    async def __call__(self) -> None: ...


@pytest.fixture(scope="module")
def shop(deploy: Deploy) -> Handle:
    return deploy(Shop.bind(Tax.bind()), "logged")


@pytest.fixture
def price(shop: Handle, channel: grpc.Channel) -> Callable[[str, str], Any]:
    """Calls Price with a request id."""
    stub = shop_pb2_grpc.ShopStub(channel)

    def call(name: str, request_id: str) -> Any:
        metadata = (("application", "logged"), ("request_id", request_id))
        return stub.Price(shop_pb2.Item(name=name), metadata=metadata, timeout=10)

    return call


def logs(*arguments: str) -> str:
    """What `mesh logs` shows."""
    result = CliRunner().invoke(main.main, ["logs", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def records(shown: str) -> list[str]:
    """Deployment, level, logger and message of each record that is shown; a traceback as its last line."""
    found: list[str] = []
    for line in shown.splitlines():
        head = _HEAD.match(line)
        if head is None:
            found[-1] += f" ... {line}" if line.startswith("ValueError") else ""
        else:
            found.append(f"{head['deployment']} {head['level']} {head['rest']}")
    return found


def test_a_failed_request_is_found_by_its_id(price: Callable[[str, str], Any]) -> None:
    """With what it logged and printed, and the traceback (items 156, 238)."""
    with pytest.raises(grpc.RpcError, match="boom asked for"):
        price("boom", "request-1")
    shown = logs("logged", "--request", "request-1")
    assert records(shown) == [
        "Shop INFO mine: asked for boom",
        "Shop INFO stdout: printed boom",
        "Shop ERROR mesh: /mesh.tests.Shop/Price failed: ValueError: boom asked for ... ValueError: boom asked for",
    ]
    traceback = shown.splitlines()[3:]
    assert traceback[0] == "Traceback (most recent call last):"
    assert traceback[1].endswith("in Price")


def test_a_failure_two_hops_down_has_its_traceback_where_it_happened(price: Callable[[str, str], Any]) -> None:
    with pytest.raises(grpc.RpcError, match="no tax on it"):
        price("untaxed", "request-2")
    assert records(logs("--request", "request-2"))[2:] == [
        "Tax ERROR mesh: __call__ failed: LookupError: no tax on it",
        "Shop WARNING mesh: /mesh.tests.Shop/Price failed in a call that it made: LookupError: no tax on it",
    ]


def test_a_status_that_user_code_chose_is_no_failure(price: Callable[[str, str], Any]) -> None:
    with pytest.raises(grpc.RpcError, match="not here"):
        price("unknown", "request-3")
    assert records(logs("logged", "--request", "request-3")) == [
        "Shop INFO mine: asked for unknown",
        "Shop INFO stdout: printed unknown",
    ]


def test_the_logs_of_a_replica_that_is_gone_stay_and_say_why(deploy: Deploy) -> None:
    """The controller's lines about it are there too."""
    deploy(Mortal.bind(), "mortal")
    (gone,) = running("mortal", "Mortal").values()
    os.kill(gone.pid, signal.SIGKILL)
    until(lambda: gone.replica_id not in running("mortal", "Mortal") and running("mortal", "Mortal"))
    shown = logs("mortal", "--replica", gone.replica_id)
    assert "stdout: I live" in shown
    assert f"WARNING controller mesh: replica mortal/Mortal#{gone.replica_id} ended: Its process exited" in shown
    assert ": replaces one that failed" in logs("mortal")
    assert "mortal" not in logs("logged")


def test_what_a_constructor_and_reconfigure_raise_is_in_the_controllers_log(deploy: Deploy) -> None:
    with pytest.raises(RuntimeError, match="no config"):
        deploy(Mortal.options(user_config={"is_bad": True}, max_constructor_retry_count=1).bind(), "misconfigured")
    shown = logs("misconfigured", "Mortal")
    assert "WARNING controller mesh: the start of replica misconfigured/Mortal#" in shown
    assert "failed: ValueError: no config" in shown
    assert "in reconfigure" in shown


@pytest.mark.filterwarnings("ignore:version= of a deployment:DeprecationWarning")
def test_an_access_log_is_turned_on_without_a_restart(deploy: Deploy) -> None:
    """For the deployment that asks for it, in JSON (items 236, 237)."""
    plain = Mortal.options(version="1")
    deploy(plain.bind(), "accessed").remote().result(timeout_s=10)
    before = running("accessed", "Mortal").keys()
    handle = deploy(plain.options(logging_config={"encoding": "JSON"}).bind(), "accessed")
    handle.remote().result(timeout_s=10)
    assert running("accessed", "Mortal").keys() == before
    (access,) = [line for line in logs("accessed").splitlines() if "mesh.access" in line]
    record = json.loads(access)
    assert record["message"].startswith("__call__ OK ")
    assert {record["application"], record["deployment"], record["replica"]} == {"accessed", "Mortal", *before}


def test_processes_are_named_after_what_they_run(shop: Handle) -> None:
    def names() -> str:
        return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout

    (replica_id,) = running("logged", "Shop")
    for name in (f"ray::logged/Shop#{replica_id}", "ray::mesh-controller", "ray::mesh-gateway"):
        until(lambda name=name: name in names())


@small(logging_config={"log_level": "ERROR"})
class Chatty:
    async def __call__(self) -> None:
        mine = logging.getLogger("mine")
        mine.debug("loud")
        mine.debug("quiet", extra={"log_to_stderr": False})
        logging.getLogger("ray.serve").debug("as before")


def test_every_field_of_a_logging_config_takes_effect(deploy: Deploy, tmp_path: Path) -> None:
    """Level, place, form, attributes and access log of one deployment, and records for its file only (item 235)."""
    config = {
        "encoding": "json",
        "log_level": "DEBUG",
        "logs_dir": str(tmp_path),
        "enable_access_log": False,
        "additional_log_standard_attrs": ["threadName"],
    }
    deploy(Chatty.options(logging_config=config).bind(), "chatty").remote().result(timeout_s=10)
    ((replica_id, replica),) = running("chatty", "Chatty").items()
    (file,) = tmp_path.glob(f"*{replica_id}*.log")
    read = [json.loads(line) for line in file.read_text().splitlines()]
    own = [record for record in read if record["name"] == "mine"]
    assert [(record["message"], record["levelname"]) for record in own] == [("loud", "DEBUG"), ("quiet", "DEBUG")]
    (served,) = [record for record in read if record["name"] == "ray.serve"]
    assert (served["message"], served["levelname"], served["request_id"]) == (
        "as before",
        "DEBUG",
        own[0]["request_id"],
    )
    assert all(record["threadName"] and record["replica"] == replica_id for record in own)
    assert not [record for record in read if record["name"] == "mesh.access"]
    assert '"quiet"' in logs("chatty"), "mesh logs follows the link to the directory"
    (stderr,) = Path(ray_core.logs_directory()).glob(f"worker-*-{replica.pid}.err")
    assert ('"loud"' in stderr.read_text(), '"quiet"' in stderr.read_text()) == (True, False)


def test_a_level_leaves_records_out(deploy: Deploy) -> None:
    """The deployment's own wins over that of the run (items 71, 237)."""
    deploy(Chatty.bind(), "hushed").remote().result(timeout_s=10)
    assert "loud" not in logs("hushed")
