"""Two drivers, two controllers and lost keys, in fake time: none undoes the work of another.

A test runs the coroutine that follows it; what is asserted stands there.
"""

import asyncio
import functools

import pytest

from mesh.cluster.keys import STATE_KEY
from mesh.controller.control_loop import LostStateError
from mesh.controller.desired.desired_change import with_replicas
from mesh.controller.desired.desired_keeper import DesiredKeeper
from mesh.controller.desired.desired_store import FencedError, StateStore
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2
from tests.sim.fake_mesh import Mesh
from tests.sim.fake_time import run_in_fake_time
from tests.sim.goals import is_running
from tests.unit.controller.builders import application, with_application
from tests.unit.controller.dict_kv import DictKeyValue


def test_a_late_retry_does_not_undo_a_newer_deploy() -> None:
    """The controller dies between storing a deploy and answering it; another driver deploys before the retry."""
    run_in_fake_time(_retry_late())


async def _retry_late() -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 1)
    await mesh.until(lambda: is_running(mesh, "v1", 1))
    put = mesh.kv.put

    def put_and_die(key: str, value: bytes) -> None:
        put(key, value)
        if key == STATE_KEY and not mesh.life.is_over:
            mesh.life.dies_at_step = mesh.life.steps + 1

    mesh.kv.put = put_and_die  # type: ignore[method-assign]
    first = asyncio.ensure_future(mesh.deploy("first", 1))
    await asyncio.sleep(0.05)
    mesh.kv.put = put  # type: ignore[method-assign]
    assert mesh.stored().applications[0].deployments[0].version == "first"
    assert not first.done()
    while not mesh.is_up:  # noqa: ASYNC110 - before the first driver looks again
        await asyncio.sleep(0.01)
    await mesh.deploy("second", 1)
    await first
    assert mesh.stored().applications[0].deployments[0].version == "second"
    await mesh.until(lambda: is_running(mesh, "second", 1))
    await mesh.crash()


def test_an_old_controller_that_lives_on_stores_nothing() -> None:
    """Ray took its node for dead; it makes one autoscaling decision more."""
    run_in_fake_time(_live_on())


async def _live_on() -> None:
    kv = DictKeyValue()
    old, new = (DesiredKeeper(StateStore(kv), lambda desired: None) for _ in range(2))
    await old.claim()
    await old.load(control_pb2.GatewayOptions())
    scaled = control_pb2.AutoscalingOptions(min_replicas=1, max_replicas=9, target_ongoing_requests=1)
    one, two = application("one", "v1", 1, scaled), application("two", "v1", 1)
    await old.change(functools.partial(with_application, application=one, unix_time_s=0.0), [one])
    await new.claim()
    await new.load(control_pb2.GatewayOptions())
    await new.change(functools.partial(with_application, application=two, unix_time_s=0.0), [two])
    before = dict(kv.entries)
    with pytest.raises(FencedError):
        await old.change(functools.partial(with_replicas, targets={DeploymentKey("one", "Model"): (1, 2)}))
    assert kv.entries == before


def test_a_controller_that_finds_replicas_but_no_state_touches_nothing() -> None:
    """Its keys were deleted; the replicas serve on."""
    run_in_fake_time(_lose_keys())


async def _lose_keys() -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 5)
    await mesh.until(lambda: is_running(mesh, "v1", 5))
    mesh.kv.entries.clear()
    await mesh.crash()
    with pytest.raises(LostStateError, match="5 replicas live"):
        await mesh.boot()
    await asyncio.sleep(60.0)
    assert len(mesh.cluster.serving()) == 5
    await mesh.crash()
