"""Owns the control loop: observe → plan → apply → publish.

Level-triggered: a turn looks at everything and does what is missing, so a lost event costs at most a second. All state
lives on the I/O loop; only the store and Ray's blocking calls leave it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from mesh.controller.apply import Applier
from mesh.controller.deployment_status import Verdict
from mesh.controller.desired import Desired, read_desired
from mesh.controller.fleet import Fleet
from mesh.controller.nodes import NodeList
from mesh.controller.observe import Observed
from mesh.controller.plan import plan
from mesh.controller.publish import Publisher
from mesh.controller.recover import recover
from mesh.controller.runtime import Runtime
from mesh.controller.snapshots import build_routes, build_snapshots
from mesh.controller.status_report import build_status, judge_all
from mesh.controller.store import StateStore
from mesh.routing.snapshot import DeploymentKey
from mesh.status import DeploymentStatus
from mesh.v1 import control_pb2

logger = logging.getLogger("mesh")

_PERIOD_S = 1.0


class ControlLoop:
    def __init__(
        self,
        store: StateStore,
        runtime: Runtime,
        publisher: Publisher,
        *,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        spawn_task: Callable[[Coroutine[Any, Any, None], str], object],
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._publisher = publisher
        self._clock = clock
        self._wake = asyncio.Event()
        self._change_lock = asyncio.Lock()
        self._fleet = Fleet(clock, self._wake.set)
        self._applier = Applier(
            self._fleet, runtime, spawn_task=spawn_task, new_id=new_id, before_drain=publisher.settle
        )
        self._state = control_pb2.DesiredState()
        self._desired = Desired()
        self._node_list = NodeList(runtime, clock)
        self._verdicts: dict[DeploymentKey, Verdict] = {}

    async def begin(self, gateways: control_pb2.GatewayOptions) -> None:
        """Load the desired state, or make the first one, and take over what an earlier controller left running."""
        state = await asyncio.to_thread(self._store.load)
        if state is None:
            state = control_pb2.DesiredState(version=1, gateways=gateways)
            await asyncio.to_thread(self._store.save, state)
        self._take_over(state)
        await recover(self._runtime, self._applier)

    async def run(self) -> None:
        """Turn for ever."""
        while True:
            self._wake.clear()
            began_s = self._clock()
            try:
                await self._turn()
            except Exception:
                # The one boundary: whatever went wrong, the next turn starts from the whole picture again.
                logger.exception("a turn of the control loop failed")
                await asyncio.sleep(_PERIOD_S)
            # However many events come, at most half of the time goes into turns.
            await asyncio.sleep(min(self._clock() - began_s, _PERIOD_S))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PERIOD_S):
                    await self._wake.wait()

    async def change(
        self,
        edit: Callable[[control_pb2.DesiredState], control_pb2.DesiredState],
        code_of: control_pb2.ApplicationSpec | None = None,
    ) -> int:
        """Store an edited state (and an application's code, before it) and act on it. Returns its version.

        What `edit` raises is raised before anything is stored.
        """
        async with self._change_lock:
            edit(self._state)
            if code_of is not None:
                await asyncio.to_thread(self._store.put_code, code_of)
            state = edit(self._state)
            await asyncio.to_thread(self._store.save, state)
            if code_of is not None:
                self._forgive(code_of)
            self._take_over(state)
            return state.version

    def status(self) -> control_pb2.StatusReply:
        return build_status(self._desired, self._judged(), self._verdicts)

    def _take_over(self, state: control_pb2.DesiredState) -> None:
        self._state = state
        self._desired = read_desired(state)
        self._applier.use(self._desired)
        self._fleet.forget_failures(keep=set(self._desired.deployments))
        self._wake.set()

    def _forgive(self, application: control_pb2.ApplicationSpec) -> None:
        """Deployed anew, a deployment gets all its tries again, even if nothing about it has changed."""
        for deployment in application.deployments:
            key = DeploymentKey(application.name, deployment.name)
            self._fleet.restart_failures(key)
            verdict = self._verdicts.get(key)
            if verdict is not None and verdict.status == DeploymentStatus.DEPLOY_FAILED:
                del self._verdicts[key]

    async def _turn(self) -> None:
        await self._node_list.refresh()
        observed = self._fleet.observed(self._node_list.nodes)
        # From here to the publishing nothing awaits: a replica leaves the snapshots before its drain can begin.
        self._applier.apply(plan(self._desired, observed, self._clock()))
        observed = self._judged()
        snapshots = build_snapshots(self._desired, observed, self._verdicts)
        self._publisher.publish(self._desired, snapshots, build_routes(self._desired))

    def _judged(self) -> Observed:
        """The present picture, with the verdicts brought up to it."""
        observed = self._fleet.observed(self._node_list.nodes)
        self._verdicts = judge_all(self._verdicts, self._desired, observed, self._clock())
        return observed
