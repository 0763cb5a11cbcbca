"""A canary on a real Ray, with clients of every kind that call all the time: its share, its match, its promotion."""

import sys
import textwrap
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from click.testing import CliRunner

import mesh
from mesh.cli import main
from tests.e2e.conftest import Gateway
from tests.e2e.load import Load
from tests.e2e.metrics import families
from tests.e2e.replicas import running
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

CODE = """
import mesh
from tests.unit.protos import shop_pb2, shop_pb2_grpc

@mesh.deployment(ray_actor_options={{"num_cpus": 0}}, max_ongoing_requests=100)
class Pricer:
    async def __call__(self) -> str:
        return "{version}"

@mesh.deployment(ray_actor_options={{"num_cpus": 0}}, max_ongoing_requests=100)
class Front(shop_pb2_grpc.ShopServicer):
    def __init__(self, pricer: mesh.DeploymentHandle) -> None:
        self.pricer = pricer

    async def answer(self) -> str:
        return "{version} " + await self.pricer.remote()

    async def __call__(self, request: object) -> str:
        return await self.answer()

    async def Price(self, request: object, context: object) -> shop_pb2.Item:
        return shop_pb2.Item(name=await self.answer())

app = Front.bind(Pricer.bind())
"""


@dataclass
class Project:
    """A module of two versions, deployed by commands."""

    directory: Path
    name: str

    def deploy(self, version: str, *options: str) -> str:
        module = f"{self.name}_{version}"
        (self.directory / f"{module}.py").write_text(textwrap.dedent(CODE.format(version=version)))
        target = ("deploy", f"{module}:app", "--name", "canary", "--route-prefix", "/canary")
        return self.mesh(*target, "--app-dir", str(self.directory), *options)

    def mesh(self, *arguments: str) -> str:
        done = CliRunner().invoke(main.main, arguments)
        assert done.exit_code == 0, done.output
        return done.output


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield Project(tmp_path, f"canary_{uuid.uuid4().hex[:8]}")
    mesh.delete("canary")


def callers(gateway: Gateway, channel: grpc.Channel) -> tuple[Callable[[], Any], ...]:
    """A handle, a gRPC client and an HTTP client."""
    handle: Any = mesh.get_app_handle("canary")
    price = shop_pb2_grpc.ShopStub(channel).Price
    web = httpx.Client(base_url=gateway.http_url, timeout=20)
    return (
        lambda: handle.answer.remote().result(timeout_s=20),
        lambda: price(shop_pb2.Item(), timeout=20, metadata=(("application", "canary"),)).name,
        lambda: web.get("/canary").raise_for_status().text,
    )


def versions(answers: list[Any]) -> Counter[str]:
    return Counter(map(str, answers))


@pytest.mark.timeout(240)
def test_a_canary_gets_its_share_and_is_promoted_without_a_failed_call(
    project: Project, gateway: Gateway, channel: grpc.Channel
) -> None:
    """A request stays with one version in all deployments it passes; a rollback goes back to the other."""
    project.deploy("one")
    with Load(*callers(gateway, channel)) as load:
        load.until_answered(50)
        assert "Canaries run: canary" in project.deploy("two", "--traffic-percent", "20")
        until(lambda: "two two" in load.answers[-20:])
        load.until_answered(600)
        seen = versions(load.answers[-600:])
        assert seen.keys() == {"one one", "two two"}, seen
        assert 80 <= seen["two two"] <= 160, seen
        assert "20 % of requests" in project.mesh("status", "--name", "canary")
        project.mesh("promote", "canary")
        until(lambda: versions(load.answers[-50:]).keys() == {"two two"}, timeout_s=30)
        project.mesh("rollback", "canary")
        until(lambda: versions(load.answers[-50:]).keys() == {"one one"}, timeout_s=30)
    assert load.errors == []
    series = families(gateway)["mesh_version_requests"].samples
    assert {each.labels["version"] for each in series if each.labels["deployment"] == "Pricer"}


@pytest.mark.timeout(240)
def test_a_header_field_or_metadata_leads_to_the_canary_until_it_is_ended(
    project: Project, gateway: Gateway, channel: grpc.Channel
) -> None:
    """No other request does; a pause of the application's rollouts changes nothing about it."""
    project.deploy("one")
    project.deploy("two", "--traffic-match", "x-canary=yes")
    price = shop_pb2_grpc.ShopStub(channel).Price
    application = ("application", "canary")

    def asked(canary: str) -> set[str]:
        metadata = (application, ("x-canary", canary))
        by_grpc = price(shop_pb2.Item(), timeout=20, metadata=metadata).name
        by_http = httpx.get(f"{gateway.http_url}/canary", headers={"x-canary": canary}, timeout=20).text
        return {by_grpc, by_http}

    with Load(*callers(gateway, channel)) as load:
        until(lambda: asked("yes") == {"two two"})
        for _ in range(50):
            assert asked("yes") == {"two two"}
            assert asked("no") == {"one one"}
        project.mesh("pause", "canary")
        assert asked("yes") == {"two two"}
        project.mesh("resume", "canary")
        assert "canary ended" in project.mesh("rollback", "canary")
        until(lambda: asked("yes") == {"one one"})
        load.until_answered(50)
    assert load.errors == []
    assert versions(load.answers).keys() == {"one one"}
    until(lambda: len(running("canary", "Front")) == 1)
