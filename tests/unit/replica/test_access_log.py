"""mesh.replica.access_log: one record per call that ended, only where it is asked for."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Iterator

import pytest

from mesh.exceptions import MeshException
from tests.unit.fakes.small_mesh import SmallMesh, do_on_io, mesh_of, until

DEADLINE_S = 30.0


class Shop:
    async def buy(self) -> str:
        return "a pear"

    async def fail(self) -> None:
        raise ValueError("no pears")

    async def stream(self) -> AsyncIterator[int]:
        yield 1


@pytest.fixture
def mesh(caplog: pytest.LogCaptureFixture) -> Iterator[SmallMesh]:
    caplog.set_level(logging.INFO, "mesh.access")
    with mesh_of(Shop()) as mesh:
        yield mesh


def accesses(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Method and status of each record, without the duration."""
    messages = [record.getMessage() for record in caplog.records if record.name == "mesh.access"]
    assert all(re.fullmatch(r"\w+ \w+ \d+\.\d ms", message) for message in messages)
    return [message.rpartition(" ")[0].rpartition(" ")[0] for message in messages]


def test_each_call_is_logged_while_that_is_wanted(mesh: SmallMesh, caplog: pytest.LogCaptureFixture) -> None:
    executor = mesh.replicas[0].executor
    assert mesh.handle("buy").remote().result(timeout_s=DEADLINE_S) == "a pear"
    assert accesses(caplog) == []
    do_on_io(executor.log_accesses, True)
    mesh.handle("buy").remote().result(timeout_s=DEADLINE_S)
    until(lambda: accesses(caplog) == ["buy OK"], "the record")
    assert caplog.records[-1].__dict__["request_id"]
    with pytest.raises(ValueError, match="no pears"):
        mesh.handle("fail").remote().result(timeout_s=DEADLINE_S)
    assert list(mesh.handle("stream", stream=True).remote()) == [1]
    with pytest.raises(MeshException):
        mesh.handle("missing").remote().result(timeout_s=DEADLINE_S)
    until(lambda: accesses(caplog)[1:] == ["fail INTERNAL", "stream OK", "missing INTERNAL"], "the records")
    do_on_io(executor.log_accesses, False)
    mesh.handle("buy").remote().result(timeout_s=DEADLINE_S)
    assert len(accesses(caplog)) == 4
