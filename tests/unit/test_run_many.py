"""mesh.run_many on a fake cluster: its parameters, and what it refuses."""

import inspect

import pytest

import mesh
from tests.unit.fakes.mesh_fakes import FakeCluster


@mesh.deployment
def model() -> None: ...


def test_its_parameters_are_those_of_ray_serve(cluster: FakeCluster) -> None:
    """In this order (item 74)."""
    assert list(inspect.signature(mesh.run_many).parameters) == [
        "targets", "wait_for_ingress_deployment_creation", "wait_for_applications_running", "_local_testing_mode",
    ]  # fmt: skip


def test_it_returns_when_the_applications_are_stored_if_that_is_enough(cluster: FakeCluster) -> None:
    """They can be called from then on (item 74)."""
    cluster.run_controller().deploy_result = ("DEPLOYING", "")
    targets = [mesh.RunTarget(model.bind(), name=name, route_prefix=f"/{name}") for name in ("a", "b")]
    for is_created in (True, False):
        handles = mesh.run_many(targets, is_created, False)
        assert [each.app_name for each in handles] == ["a", "b"]


def test_names_differ(cluster: FakeCluster) -> None:
    """Otherwise the last one would be all there is (item 74)."""
    with pytest.raises(ValueError, match=r"run_many got a name twice: a, a\. Names must differ"):
        mesh.run_many([mesh.RunTarget(model.bind(), "a", "/a"), mesh.RunTarget(model.bind(), "a", "/b")])
    assert not cluster.actors
