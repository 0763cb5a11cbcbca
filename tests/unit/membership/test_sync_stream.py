"""mesh.membership.sync_stream: the pauses between attempts to reach the controller."""

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from mesh.cluster import ray_core
from mesh.membership import sync_stream
from mesh.membership.sync_stream import SyncStream
from mesh.settings import settings
from mesh.v1 import control_pb2
from mesh.wire.blocking_work import Work
from tests.sim.fake_time import run_in_fake_time

PROCESSES = 200


def test_processes_that_lose_the_controller_together_do_not_come_back_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pause is twice the last one, up to a limit, and shorter by a random part: 11,000 must not ask at once."""
    attempts: dict[SyncStream, list[float]] = {}

    async def attempt(stream: SyncStream) -> None:
        attempts.setdefault(stream, []).append(asyncio.get_running_loop().time())
        raise LookupError("there is no controller")

    async def main() -> None:
        streams = [SyncStream(cast(Any, object())) for _ in range(PROCESSES)]
        tasks = [asyncio.create_task(stream._keep()) for stream in streams]
        await asyncio.sleep(120.0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    monkeypatch.setattr(SyncStream, "_attempt", attempt)
    run_in_fake_time(main())
    longest_s = settings().process.sync_reconnect_delay_max_s
    for times in attempts.values():
        pauses = [after - before for before, after in itertools.pairwise(times)]
        assert all(pause <= longest_s for pause in pauses)
        assert all(pause >= longest_s / 2 for pause in pauses[-5:])
    late = [sum(100.0 <= time < 100.0 + longest_s / 4 for time in times) for times in attempts.values()]
    assert 0 < sum(late) < PROCESSES / 2, "they are spread over the whole pause"


@pytest.mark.parametrize("is_connected", [True, False])
def test_a_program_that_has_shut_ray_down_is_not_warned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_connected: bool
) -> None:
    """What Ray raises then says nothing to anybody; in a process that is connected it does, once."""

    def kv_get(key: str) -> bytes:
        raise AttributeError("'NoneType' object has no attribute 'internal_kv_get'")

    async def run_here(work: Work, function: Callable[[], bytes]) -> bytes:
        return function()

    async def main() -> None:
        task = asyncio.create_task(SyncStream(process)._keep())
        await asyncio.sleep(60.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    process = MagicMock()
    monkeypatch.setattr(sync_stream, "run_blocking", run_here)
    monkeypatch.setattr(ray_core, "kv_get", kv_get)
    monkeypatch.setattr(ray_core, "is_connected", lambda: is_connected)
    with caplog.at_level(logging.WARNING, "mesh"):
        run_in_fake_time(main())
    assert len(caplog.records) == int(is_connected)
    assert process.leave_ray.called is not is_connected


def test_the_health_of_a_replica_is_reported_once_and_not_that_of_before_the_stream() -> None:
    """What it was then may be long ago."""

    class Stream:
        def __init__(self) -> None:
            self.reports: list[control_pb2.Report] = []

        async def write(self, report: control_pb2.Report) -> None:
            self.reports.append(report)

    async def main() -> list[control_pb2.Report]:
        written = Stream()
        stream = SyncStream(cast(Any, MagicMock(process_id="p", kind=2, **{"routers.return_value": []})))
        stream._process.identity.node_id = "n1"  # type: ignore[misc]
        stream._process.readings = lambda: []  # type: ignore[method-assign]
        stream.report_health(control_pb2.ReplicaHealth(replica_id="early", is_well=True))
        task = asyncio.create_task(stream._write_reports(cast(Any, written)))
        await asyncio.sleep(5.0)
        for replica_id in ("r1", "r2"):
            stream.report_health(control_pb2.ReplicaHealth(replica_id=replica_id, is_well=True))
            await asyncio.sleep(5.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return written.reports

    reports = run_in_fake_time(main())
    assert [each.health.replica_id for each in reports] == ["", "r1", "r2"]
