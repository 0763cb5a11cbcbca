"""The controller dies between every two steps of everything that it is asked for, one step per run.

A step is one side of a call to the cluster or to the KV: before it was made, or after it was carried out. In each run
the next controller has to finish what was begun, with the replicas that are there.
"""

import asyncio
import itertools

import pytest

from tests.sim.deaths import SIZE, Operation, die_at
from tests.sim.fake_time import run_in_fake_time
from tests.sim.goals import is_running

OPERATIONS = {
    "deploy": Operation(lambda mesh: mesh.deploy("v1", SIZE), lambda mesh: is_running(mesh, "v1", SIZE), False),
    "update": Operation(
        lambda mesh: mesh.deploy("v2", SIZE), lambda mesh: is_running(mesh, "v2", SIZE), never_below=SIZE
    ),
    "scale": Operation(
        lambda mesh: mesh.deploy("v1", SIZE + 1),
        lambda mesh: is_running(mesh, "v1", SIZE + 1),
        keeps=True,
        never_below=SIZE,
        most=SIZE + 1,
    ),
    "nothing": Operation(
        lambda mesh: asyncio.sleep(5.0), lambda mesh: is_running(mesh, "v1", SIZE), keeps=True, never_below=SIZE
    ),
    "delete": Operation(lambda mesh: mesh.delete(), lambda mesh: mesh.app_status() == ""),
    "shutdown": Operation(lambda mesh: mesh.shut_down(), lambda mesh: mesh.is_empty()),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_survives_the_death_of_the_controller_at_every_step(name: str) -> None:
    """What was asked for is stored before anything is done (items 182, 183)."""
    for step in itertools.count(1):
        has_died = run_in_fake_time(die_at(OPERATIONS[name], [step]))
        if not has_died:
            break
    assert step > 10, "there was hardly a step to die at"


@pytest.mark.parametrize("first", range(1, 40, 9))
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_survives_the_death_of_the_next_controller_too(name: str, first: int) -> None:
    """The second one dies at every step of its start and a bit beyond, after the first died somewhere."""
    outcomes = {run_in_fake_time(die_at(OPERATIONS[name], [first, second])) for second in range(1, 25)}
    assert len(outcomes) == 1, "what befalls the second changed whether the first died"
