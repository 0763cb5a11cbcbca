"""mesh.controller.controller_actor: a start has an end, whatever does not answer."""

import asyncio

import pytest

from mesh.cluster.keys import CONTROLLER_FAILURE_KEY
from mesh.controller.controller_actor import ControllerActor
from mesh.v1 import control_pb2
from tests.sim.fake_time import fake_time_loop, run_in_fake_time
from tests.unit.fakes.mesh_fakes import FakeCluster


def given_up() -> tuple[str, float]:
    """Why, and after how many seconds."""
    # Without its constructor, which gives the process a name and logs.
    actor = object.__new__(ControllerActor)
    actor._gateway_options = control_pb2.GatewayOptions()

    async def begin() -> tuple[str, float]:
        with pytest.raises(TimeoutError) as caught:
            await actor._begin()
        return str(caught.value), fake_time_loop().time()

    return run_in_fake_time(begin())


def test_a_start_ends_though_nothing_answers(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where Ray's GCS stands still: neither the store nor the record of the failure is answered."""

    async def hang(*arguments: object) -> None:
        fake_time_loop().thread_delay_s = 10_000.0
        await asyncio.to_thread(int)

    monkeypatch.setattr(ControllerActor, "_serve", hang)
    assert given_up() == ("it does not serve 300 s after its start", 305.0)
    assert cluster.kv == {}


def test_a_start_that_takes_too_long_says_so_to_those_who_wait(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*arguments: object) -> None:
        await asyncio.sleep(10_000.0)

    monkeypatch.setattr(ControllerActor, "_serve", hang)
    assert given_up() == ("it does not serve 300 s after its start", 300.0)
    assert cluster.kv[CONTROLLER_FAILURE_KEY] == b"TimeoutError: it does not serve 300 s after its start"
