"""Calls that wait too long for a place: the handle's limit, else the deployment's, and one timer for all."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest

from mesh.exceptions import BackPressureError, QueueTimeoutError
from mesh.routing.snapshot import Snapshot
from mesh.settings import settings
from tests.unit.fakes.small_mesh import DEADLINE_S, KEY, SmallMesh, do_on_io, mesh_of, until

pytestmark = pytest.mark.timeout(60)


class Gate:
    def __init__(self) -> None:
        self.entered = 0
        self.gate = asyncio.Event()

    async def __call__(self) -> str:
        self.entered += 1
        await self.gate.wait()
        return "through"


@pytest.fixture
def full() -> Iterator[SmallMesh]:
    """A mesh whose only place is taken."""
    with mesh_of(Gate(), limit=1) as mesh:
        gate = mesh.replicas[0].target
        holder = mesh.handle().remote()
        until(lambda: gate.entered, "the place to be taken")
        yield mesh
        mesh.replicas[0].user_loop.post(gate.gate.set)
        assert holder.result(timeout_s=DEADLINE_S) == "through"
        mesh.assert_idle()


def publish(mesh: SmallMesh, queue_timeout_s: float) -> None:
    infos = tuple(replica.info for replica in mesh.replicas)
    do_on_io(mesh.router.update, Snapshot(KEY, 10**6, infos, 1, queue_timeout_s=queue_timeout_s))


def error_of(response: Any) -> Exception:
    with pytest.raises(QueueTimeoutError) as caught:
        response.result(timeout_s=DEADLINE_S)
    return caught.value


def test_a_call_that_waits_too_long_says_how_long_and_for_what(full: SmallMesh) -> None:
    began_s = time.monotonic()
    error = error_of(full.handle(queue_timeout_s=0.2).remote())
    assert time.monotonic() - began_s >= 0.2
    assert isinstance(error, BackPressureError)
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.is_retry_safe
    start, end = str(error).split(" s for a free place of ")
    assert 0.2 <= float(start.removeprefix("The call was not sent: it waited ")) < DEADLINE_S
    assert end == (
        f"{KEY}: 1 of 1 calls busy on 1 replica; raise max_ongoing_requests or num_replicas. "
        "Its queue_timeout_s is 0.2. Retry later."
    )
    assert full.router.counts.dropped == 1


def test_a_handle_has_its_own_limit_or_that_of_the_deployment(full: SmallMesh) -> None:
    publish(full, 0.1)
    patient, plain = full.handle(queue_timeout_s=60).remote(), full.handle().remote()
    error_of(plain)
    assert full.router.queued == 1
    patient.cancel()


def test_a_new_limit_of_the_deployment_applies_to_calls_that_wait(full: SmallMesh) -> None:
    waiting = full.handle().remote()
    until(lambda: full.router.queued, "the call to wait")
    publish(full, 0.1)
    assert "Its queue_timeout_s is 0.1." in str(error_of(waiting))
    assert full.router.queued == 0


def test_a_short_limit_is_kept_behind_a_long_one(full: SmallMesh) -> None:
    long = full.handle(queue_timeout_s=60).remote()
    until(lambda: full.router.queued, "the call to wait")
    assert "Its queue_timeout_s is 0.1." in str(error_of(full.handle(queue_timeout_s=0.1).remote()))
    assert full.router.queued == 1
    long.cancel()


def test_a_call_that_has_its_place_has_no_limit() -> None:
    with mesh_of(Gate(), limit=1) as mesh:
        gate = mesh.replicas[0].target
        running = mesh.handle(queue_timeout_s=0.05).remote()
        with pytest.raises(TimeoutError):
            running.result(timeout_s=0.3)
        mesh.replicas[0].user_loop.post(gate.gate.set)
        assert running.result(timeout_s=DEADLINE_S) == "through"


def test_many_calls_share_one_timer(full: SmallMesh) -> None:
    responses = [full.handle(queue_timeout_s=0.2).remote() for _ in range(500)]
    for response in responses:
        error_of(response)
    assert not full.router.timeouts.is_timing


@pytest.mark.parametrize("value", [0, -1, "1", True])
def test_a_limit_is_a_positive_number(full: SmallMesh, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="queue_timeout_s must be"):
        full.handle(queue_timeout_s=value)


def test_calls_that_wait_for_long_are_logged_with_what_they_wait_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line for all of them, again and again until they are served (item 162)."""
    watchful = replace(settings(), routing=replace(settings().routing, queue_warning_s=0.05))
    monkeypatch.setattr("mesh.routing.waiting.long_waits.settings", lambda: watchful)
    with caplog.at_level(logging.WARNING, "mesh"), mesh_of(Gate(), limit=1) as mesh:
        responses = [mesh.handle().remote() for _ in range(4)]
        until(lambda: len(caplog.records) >= 2, "two warnings")
        mesh.replicas[0].user_loop.post(mesh.replicas[0].target.gate.set)
        assert [response.result(timeout_s=DEADLINE_S) for response in responses] == ["through"] * 4
        mesh.assert_idle()
        long_waits = mesh.router.timeouts.long_waits
        until(lambda: not long_waits.is_timing, "the last look, which finds no call")
    assert {re.sub(r"\d\.\d s", "… s", record.getMessage()) for record in caplog.records} == {
        "a call has waited … s for a free place of shop/Store: 1 of 1 calls busy on 1 replica; "
        "raise max_ongoing_requests or num_replicas (2 others wait too)"
    }
