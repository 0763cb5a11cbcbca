"""Restores over a mesh that differs from its backup in every way, in fake time."""

import pytest

from mesh.status import ApplicationStatus
from mesh.v1 import control_pb2
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import fewest
from tests.sim.test_backups import deploy, restore, saved_by
from tests.unit.controller.builders import application

COUNTS = {"updated": 3, "failing": 2, "deleted": 1, "beside-canary": 2, "new": 2}


def _of(name: str, version: str, *, traffic_percent: float = 0.0) -> control_pb2.ApplicationSpec:
    made = application(name, version, COUNTS[name])
    if traffic_percent:
        made.traffic.percent = traffic_percent
    return made


def _served(mesh: Mesh) -> dict[tuple[str, str], int]:
    """How many replicas of each application and version serve."""
    found: dict[tuple[str, str], int] = {}
    for actor in mesh.cluster.serving():
        key = actor.spec.deployment.app, actor.spec.spec.version  # type: ignore[union-attr]
        found[key] = found.get(key, 0) + 1
    return found


def _are_saved(mesh: Mesh, *names: str) -> bool:
    return all(_served(mesh).get((name, f"v1-{name}")) == COUNTS[name] for name in names)


def _total(mesh: Mesh, name: str) -> int:
    return sum(count for (app, _), count in _served(mesh).items() if app == name)


@pytest.mark.parametrize("seed", range(5))
async def test_a_restore_brings_back_what_was_saved_over_whatever_has_changed_since(seed: int) -> None:
    """Without a gap; what the backup does not know stays (item 182)."""
    mesh = Mesh(seed)
    await mesh.boot()
    saved_names = ["updated", "failing", "deleted", "beside-canary"]
    await deploy(mesh, *(_of(name, f"v1-{name}") for name in saved_names))
    await mesh.until(lambda: _are_saved(mesh, *saved_names))
    saved = await saved_by(mesh)

    mesh.cluster.broken_versions = {"broken"}
    await mesh.delete("deleted")
    await deploy(mesh, _of("beside-canary", "c1", traffic_percent=50.0))
    await deploy(mesh, _of("new", "v1-new"), _of("updated", "v2"), _of("failing", "broken"))
    await mesh.until(lambda: _served(mesh).get(("updated", "v2")) == 3 and ("beside-canary", "c1") in _served(mesh))
    kept = ("updated", "failing", "beside-canary", "new")
    await mesh.until(lambda: all(_total(mesh, name) >= COUNTS[name] for name in kept))

    shown = await restore(mesh, saved, may_replace=True, is_dry_run=True)
    assert {each.application for each in shown.changes if each.lines} == {"updated", "failing", "deleted"}
    await restore(mesh, saved, may_replace=True)
    assert await fewest(lambda: min(_total(mesh, name) - COUNTS[name] for name in kept), for_s=60.0) == 0
    wanted = {(name, f"v1-{name}"): count for name, count in COUNTS.items()}
    await mesh.until(lambda: _served(mesh) == {**wanted, ("beside-canary", "c1"): 1})
    await mesh.until(lambda: {each.status for each in mesh.loop.status().applications} == {ApplicationStatus.RUNNING})
    assert [each.name for each in mesh.stored().canaries] == ["beside-canary"], "it is ended by a rollback"
    assert not mesh.failed
    await mesh.crash()
