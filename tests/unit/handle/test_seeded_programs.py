"""A program that seeds `random` gets the same numbers whatever the mesh does beside it."""

from __future__ import annotations

import random

import pytest

from tests.unit.fakes.raw_peer import DEADLINE_S, Service
from tests.unit.fakes.small_mesh import mesh_of, until

pytestmark = pytest.mark.timeout(60)


def test_connections_and_calls_draw_from_a_generator_of_their_own() -> None:
    before = random.getstate()
    with mesh_of(*(Service() for _ in range(5))) as mesh:
        assert [mesh.handle().remote(number).result(timeout_s=DEADLINE_S) for number in range(50)] == list(range(50))
        mesh.replicas[0].kill()
        until(lambda: mesh.router.link_count == 4, "the link to be broken")
    assert random.getstate() == before
