"""The controller dies at every third step of what operators ask for beside deploys, one step per run."""

import functools
import itertools

import pytest

from mesh.controller.backups import restoration
from mesh.controller.desired.changes.desired_change import rolled_back, with_pause, with_promoted
from mesh.controller.desired.changes.gateway_generations import with_gateways
from mesh.controller.desired.changes.state_edits import Edit
from mesh.status import ApplicationStatus, GatewayStatus
from mesh.v1 import control_pb2
from tests.sim.cordons import drain
from tests.sim.deaths import SIZE, Operation, die_at
from tests.sim.fake_mesh import Mesh
from tests.sim.fake_time import run_in_fake_time
from tests.sim.goals import counts, is_running
from tests.unit.controller.builders import application

REFUSED = '"bad"'
OTHER_PORT = 9001
STRIDE = 3
"""Odd: steps are calls that are about to be made and calls that were made, in turn."""


async def change(mesh: Mesh, edit: Edit) -> None:
    await mesh.ask(lambda: (edit, ()))


def has_failed(mesh: Mesh) -> bool:
    return mesh.app_status() == ApplicationStatus.DEPLOY_FAILED and counts(mesh) == {"v1": SIZE}


# ---- Updates that fail, and their undoing ----------------------------------------------------------------------------


async def deploy_broken(mesh: Mesh) -> None:
    mesh.cluster.broken_versions = {"v2"}
    await mesh.deploy("v2", SIZE)


async def deploy_crashing(mesh: Mesh) -> None:
    mesh.cluster.crashing_versions = {"v2": 5.0}
    await mesh.deploy("v2", SIZE)


async def deploy_undone(mesh: Mesh) -> None:
    mesh.cluster.broken_versions = {"v2"}
    await mesh.deploy("v2", SIZE, rollback_on_failure=True)


def is_undone(mesh: Mesh) -> bool:
    return is_running(mesh, "v1", SIZE) and mesh.loop.status().applications[0].rolled_back_because != ""


async def deploy_refused(mesh: Mesh) -> None:
    mesh.cluster.refused_configs = {REFUSED}
    await mesh.deploy("v1", SIZE, user_config_json=REFUSED)


async def update(mesh: Mesh) -> None:
    await mesh.deploy("v2", SIZE)
    await mesh.until(lambda: is_running(mesh, "v2", SIZE) and not mesh.stored().predecessors)


async def roll_back(mesh: Mesh) -> None:
    await change(mesh, functools.partial(rolled_back, name="app", unix_time_s=0.0))


# ---- Pauses, names and canaries --------------------------------------------------------------------------------------


async def deploy_paused(mesh: Mesh) -> None:
    await change(mesh, functools.partial(with_pause, application="app", deployment="", is_paused=True))
    await mesh.deploy("v2", SIZE)


def is_paused(mesh: Mesh) -> bool:
    (spec,) = mesh.stored().applications[0].deployments
    return spec.is_paused and spec.version == "v2" and counts(mesh) == {"v1": SIZE}


async def rename(mesh: Mesh) -> None:
    def make() -> control_pb2.ApplicationSpec:
        app = application(version="v2", num_replicas=SIZE)
        app.deployments[0].name = app.ingress = "Other"
        return app

    await mesh.run(make)


async def deploy_canary(mesh: Mesh) -> None:
    def make() -> control_pb2.ApplicationSpec:
        canary = application(version="c1", num_replicas=SIZE)
        canary.traffic.percent = 50.0
        return canary

    await mesh.run(make)


def has_canary(mesh: Mesh) -> bool:
    return counts(mesh) == {"v1": SIZE, "c1": 1} and mesh.app_status() == ApplicationStatus.RUNNING


async def with_canary(mesh: Mesh) -> None:
    await deploy_canary(mesh)
    await mesh.until(lambda: has_canary(mesh))


async def promote(mesh: Mesh) -> None:
    await change(mesh, functools.partial(with_promoted, name="app", unix_time_s=0.0))


# ---- Nodes, gateways and backups -------------------------------------------------------------------------------------


async def empty_node(mesh: Mesh) -> None:
    await drain(mesh, "n2")


def is_node_empty(mesh: Mesh) -> bool:
    return {actor.node_id for actor in mesh.cluster.actors.values()} == {"n1"} and is_running(mesh, "v1", SIZE)


async def without_replicas_on_n2(mesh: Mesh) -> None:
    await mesh.deploy("v1", 1)
    await mesh.until(lambda: is_running(mesh, "v1", 1) and _nodes_of_gateways(mesh) == ["n1", "n2"])


def is_gateway_gone(mesh: Mesh) -> bool:
    return _nodes_of_gateways(mesh) == ["n1"] and is_running(mesh, "v1", 1)


def _nodes_of_gateways(mesh: Mesh) -> list[str]:
    """Of all that have a process, also those that drain."""
    actors = mesh.cluster.actors.values()
    return sorted(each.spec.node_id for each in actors if isinstance(each.spec, control_pb2.GatewaySpec))


async def other_gateways(mesh: Mesh) -> None:
    expected = mesh.loop.status().gateway_options
    options = control_pb2.GatewayOptions(grpc_port=OTHER_PORT, processes=1)
    await change(mesh, functools.partial(with_gateways, options=options, expected=expected))


def are_gateways_changed(mesh: Mesh) -> bool:
    gateways = mesh.loop.status().gateways
    serving = {each.node_id for each in gateways if each.status == GatewayStatus.HEALTHY and each.revision == 1}
    return len(gateways) == len(serving) == 2 and not mesh.stored().HasField("gateways_before")


_saved: dict[Mesh, control_pb2.MeshBackup] = {}


async def update_since_backup(mesh: Mesh) -> None:
    _saved.clear()
    _saved[mesh] = await mesh.loop.backup(1.0)
    await update(mesh)


async def restore(mesh: Mesh) -> None:
    def make() -> tuple[Edit, list[control_pb2.ApplicationSpec]]:
        restored = restoration(control_pb2.RestoreRequest(backup=_saved[mesh], may_replace=True), 1.0)
        return restored.recorded_edit("someone"), restored.applications

    await mesh.ask(make)


kept = functools.partial(Operation, keeps=True, never_below=SIZE)
replaced = functools.partial(Operation, never_below=SIZE)

OPERATIONS = {
    "broken version": kept(deploy_broken, has_failed, is_tried_again=True),
    "version that crashes late": kept(deploy_crashing, has_failed, is_tried_again=True),
    "broken version that is undone": kept(deploy_undone, is_undone),
    "refused configuration": kept(deploy_refused, has_failed),
    "rollback": replaced(roll_back, lambda mesh: is_running(mesh, "v1", SIZE), prepare=update),
    "update while paused": kept(deploy_paused, is_paused),
    "rename": replaced(rename, lambda mesh: is_running(mesh, "v2", SIZE)),
    "canary": kept(deploy_canary, has_canary),
    "promotion": replaced(promote, lambda mesh: is_running(mesh, "c1", SIZE), prepare=with_canary),
    "end of a canary": replaced(roll_back, lambda mesh: is_running(mesh, "v1", SIZE), prepare=with_canary),
    "drain of a node": replaced(empty_node, is_node_empty, most=SIZE + 1),
    "drain of a gateway alone": Operation(
        empty_node, is_gateway_gone, prepare=without_replicas_on_n2, keeps=True, never_below=1, most=1
    ),
    "other gateways": kept(other_gateways, are_gateways_changed),
    "restore": replaced(restore, lambda mesh: is_running(mesh, "v1", SIZE), prepare=update_since_backup),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_operators_ask_for_survives_the_death_of_the_controller(name: str) -> None:
    """Nothing that serves is taken away, and what was asked for is done in the end (items 182, 183, 189, 190)."""
    for step in itertools.count(1, STRIDE):
        has_died = run_in_fake_time(die_at(OPERATIONS[name], [step]))
        if not has_died:
            break
    assert step > 10, "there was hardly a step to die at"
