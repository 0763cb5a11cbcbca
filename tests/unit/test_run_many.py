"""mesh.run_many on a fake cluster: its parameters, and what it refuses."""

import inspect

import pytest

import mesh
from tests.unit.fakes.mesh_fakes import FakeCluster


@mesh.deployment
def model() -> None: ...


def test_its_parameters_are_those_of_ray_serve(cluster: FakeCluster) -> None:
    """In this order, and one of our own by name (item 74)."""
    parameters = inspect.signature(mesh.run_many).parameters
    assert list(parameters) == [
        "targets", "wait_for_ingress_deployment_creation", "wait_for_applications_running", "_local_testing_mode",
        "blocking",
    ]  # fmt: skip
    assert parameters["blocking"].kind is inspect.Parameter.KEYWORD_ONLY


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


def test_a_blocking_one_ends_with_the_interrupt(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """All applications run by then, and Ctrl-C is raised again (items 70, 74)."""

    def interrupt(duration_s: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mesh.client.program_end.time.sleep", interrupt)
    targets = [mesh.RunTarget(model.bind(), name=name, route_prefix=f"/{name}") for name in ("a", "b")]
    with pytest.raises(KeyboardInterrupt):
        mesh.run_many(targets, blocking=True)
    assert [mesh.status().applications[name].status for name in ("a", "b")] == ["RUNNING", "RUNNING"]


def test_a_local_test_has_nothing_to_wait_for(cluster: FakeCluster) -> None:
    """As of one application (item 73)."""
    with pytest.raises(ValueError, match="no ports"):
        mesh.run_many([mesh.RunTarget(model.bind())], _local_testing_mode=True, blocking=True)
    assert not cluster.actors
