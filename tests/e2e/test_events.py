"""`mesh events` on a real Ray: every decision with its reason, also those of a controller that was killed."""

from collections.abc import Callable
from typing import Any

from click.testing import CliRunner

import mesh
from mesh.cli import main
from mesh.cluster import ray_core
from mesh.cluster.keys import EVENTS_KEY
from mesh.v1 import control_pb2
from tests.e2e.controller_deaths import controller_pid, kill_controller
from tests.e2e.waiting import until


@mesh.deployment(ray_actor_options={"num_cpus": 0})
class Noted:
    async def __call__(self) -> str:
        return "here"


def shown() -> str:
    return CliRunner().invoke(main.main, ["events", "noted"]).output


def test_decisions_are_kept_when_the_controller_is_killed(deploy: Callable[..., Any]) -> None:
    deploy(Noted.bind(), "noted")
    until(lambda: "deployment noted/Noted: HEALTHY" in shown(), timeout_s=30)
    before = shown()
    assert "change of application noted is stored: noted: new" in before
    assert "starting replica noted/Noted#" in before
    assert "fewer than wanted" in before
    # Events are stored together some seconds later.
    pid = controller_pid()
    until(lambda: _is_stored(before), timeout_s=30)
    kill_controller()
    until(lambda: controller_pid() != pid, timeout_s=60)
    assert set(before.splitlines()) <= set(shown().splitlines())


def _is_stored(text: str) -> bool:
    stored = control_pb2.EventsReply.FromString(ray_core.kv_get(EVENTS_KEY) or b"")
    kept = {event.text for event in stored.events}
    return all(line[22:] in kept for line in text.splitlines())
