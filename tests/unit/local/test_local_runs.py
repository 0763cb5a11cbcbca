"""All functions that run applications run them in this process where that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import mesh
from mesh import api
from mesh.cluster import ray_core
from mesh.exceptions import MeshException
from mesh.local.local_run import delete_all_local, local_application
from mesh.settings import settings
from tests.unit.local.conftest import user_threads

DEADLINE_S = 30.0


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for look in ("attach_ray", "ensure_ray"):
        monkeypatch.setattr(ray_core, look, lambda: pytest.fail("looked for a Ray"))
    yield
    delete_all_local()
    assert user_threads() == []


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with MESH_FORCE_LOCAL_TESTING_MODE=1."""
    forced = replace(settings(), process=replace(settings().process, force_local_testing_mode=1))
    monkeypatch.setattr("mesh.api.settings", lambda: forced)


@mesh.deployment
class Echo:
    def __call__(self, value: Any) -> Any:
        return value


def answer(handle: mesh.DeploymentHandle[Any]) -> Any:
    return handle.remote(1).result(timeout_s=DEADLINE_S)


@pytest.mark.parametrize("is_blocking", [True, False])
def test_the_setting_holds_for_runs_that_do_not_wait(forced: None, is_blocking: bool) -> None:
    """`_run` is a run like any other (items 72, 73)."""
    assert answer(api._run(Echo.bind(), name="forced", _blocking=is_blocking)) == 1
    assert local_application("forced") is not None


def test_each_way_to_run_takes_the_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """`run`, `_run` and `run_many` (items 62, 72, 74)."""
    assert answer(mesh.run(Echo.bind(), name="run", _local_testing_mode=True)) == 1
    assert answer(api._run(Echo.bind(), name="hidden", _local_testing_mode=True)) == 1
    (many,) = mesh.run_many([mesh.RunTarget(Echo.bind(), name="many")], _local_testing_mode=True)
    assert answer(many) == 1


def test_what_cannot_run_is_refused_as_on_a_mesh(forced: None) -> None:
    """Before any of several applications starts (items 63–65, 74)."""
    with pytest.raises(MeshException, match="Application name must be a non-empty string"):
        api._run(Echo.bind(), name="")
    with pytest.raises(TypeError, match="bind"):
        api._run(Echo)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="route_prefix"):
        mesh.run_many([mesh.RunTarget(Echo.bind(), "a"), mesh.RunTarget(Echo.bind(), "b", "b")])
    with pytest.raises(ValueError, match=r"a name twice: a, a\. Names must differ"):
        mesh.run_many([mesh.RunTarget(Echo.bind(), "a"), mesh.RunTarget(Echo.bind(), "a", "/b")])
    assert local_application("a") is None


def test_a_blocking_run_is_no_test(forced: None) -> None:
    """There are no ports to wait at (items 70, 73)."""
    with pytest.raises(ValueError, match="a local test has no ports"):
        mesh.run(Echo.bind(), blocking=True)


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise LookupError("no text")


@mesh.deployment
class Unspeakable:
    def __init__(self) -> None:
        raise UnspeakableError

    def __call__(self) -> None:
        """Never called."""


def test_a_constructor_whose_error_has_no_text_fails_the_start_as_any_other() -> None:
    with pytest.raises(RuntimeError, match=r"Deployment 'Unspeakable' .* failed to start: UnspeakableError$"):
        mesh.run(Unspeakable.bind(), name="unspeakable", _local_testing_mode=True)
