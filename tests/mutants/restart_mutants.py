"""Mutants of what a controller stores, and finds again when it has restarted."""

from __future__ import annotations

from tests.mutants.mutant import KEEPER, STORE, Mutant

RESTARTS = (
    Mutant(
        name="acts before it stores",
        file="desired/desired_keeper.py",
        old="        await run_blocking(Work.STORE, self._store.save, state)\n        self._may_differ",
        new="        self._take_over(state, desired, used_sets(state, descriptor_sets))\n"
        "        await run_blocking(Work.STORE, self._store.save, state)\n        self._may_differ",
        tests=("sim/test_controller_faults.py",),
    ),
    Mutant(
        name="stores a repeated request again",
        file="desired/desired_keeper.py",
        old="            if changed is before:\n                return self._state.version\n",
        new="",
        tests=("unit/controller/desired/test_desired_keeper.py",),
    ),
    Mutant(
        name="lets a controller that was replaced store its address",
        file=STORE,
        old='any more."""\n        self.check_epoch()\n',
        new='any more."""\n',
        tests=("unit/controller/store/test_desired_store.py",),
    ),
    Mutant(
        name="kills the replicas of an earlier controller",
        file="actors/recovery.py",
        old='    if ready is not None and name.endswith(f"#{ready.replica_id}"):\n',
        new="    if ready is None:\n",
        tests=("sim/test_controller.py",),
    ),
    Mutant(
        name="kills replicas that are too busy to answer a new controller",
        file="actors/recovery.py",
        old="        if read is not None:\n            replicas.adopt_silent(read)\n        return\n",
        new='        await _kill(runtime, name, "silence")\n        return\n',
        tests=("sim/test_missing_answers.py",),
    ),
    Mutant(
        name="asks all replicas at once after its start",
        file="actors/recovery.py",
        old="        async with calls, asyncio.timeout(timeout_s):\n",
        new="        async with asyncio.timeout(timeout_s):\n",
        tests=("sim/test_missing_answers.py",),
    ),
    Mutant(
        name="drains before processes have come back to a new controller",
        file="control_loop.py",
        old="        if self._registry.actor_names():\n",
        new="        if False:\n",
        tests=("sim/test_returning_processes.py",),
    ),
    Mutant(
        name="looks seldom whether a newer controller has started",
        file="desired/desired_keeper.py",
        old="            await asyncio.sleep(settings().controller.epoch_interval_s)\n",
        new="            await asyncio.sleep(settings().controller.orphans_interval_s)\n",
        tests=("sim/test_returning_processes.py",),
    ),
    Mutant(
        name="forgets that a replica of an earlier controller drains",
        file=KEEPER,
        old="            self._stop(ready.replica_id, Reason.ADOPTED)\n        elif",
        new="            pass\n        elif",
        tests=("sim/test_missing_answers.py",),
    ),
    Mutant(
        name="forgets that a gateway of an earlier controller drains",
        file="actors/gateway_keeper.py",
        old="        if ready.is_draining:\n            self._stop(ready.gateway_id, Reason.ADOPTED)\n        elif not",
        new="        if not",
        tests=("sim/test_missing_answers.py",),
    ),
    Mutant(
        name="waits for a gateway that waits for it",
        file="actors/recovery.py",
        old='"describe", control_pb2.GatewayReady',
        new='"start", control_pb2.GatewayReady',
        tests=("sim/test_gateways.py",),
    ),
    Mutant(
        name="calls a process of an earlier version by a name that it lacks",
        file="actors/ray_runtime.py",
        old="            return False\n        actor.methods.add(method)\n",
        new="            pass\n        actor.methods.add(method)\n",
        tests=("unit/controller/actors/test_ray_runtime.py",),
    ),
    Mutant(
        name="lets a mass deploy push out all other events",
        file="kept_events.py",
        old="        return longest if len(longest) > self._most // _SHARE_OF_KIND else self._events\n",
        new="        return self._events\n",
        tests=("unit/controller/test_kept_events.py",),
    ),
    Mutant(
        name="leaves orphans alive",
        file="actors/orphans.py",
        old="        for name in sorted(unknown & self._suspects):\n",
        new="        for name in ():\n",
        tests=("sim/test_orphans.py",),
    ),
    Mutant(
        name="kills actors that it has just asked for",
        file="actors/orphans.py",
        old="        for name in sorted(unknown & self._suspects):\n",
        new="        for name in sorted(unknown):\n",
        tests=("sim/test_orphans.py",),
    ),
    Mutant(
        name="leaves code in the store",
        file=STORE,
        old="                self._kv.delete(key)\n",
        new="                pass\n",
        tests=("unit/controller/store/test_desired_store.py",),
    ),
    Mutant(
        name="deletes the code of the version before",
        file="store/state_contents.py",
        old="    yield from state.predecessors\n",
        new="",
        tests=("unit/controller/store/test_desired_store.py", "sim/test_generations.py"),
    ),
    Mutant(
        name="stores although a newer controller has started",
        file=STORE,
        old="        if self.epoch and newest > self.epoch:\n",
        new="        if False:\n",
        tests=("unit/controller/store/test_desired_store.py", "sim/test_fencing.py"),
    ),
    Mutant(
        name="applies a request twice",
        file="repeated_requests.py",
        old="        if request_id and request_id in state.applied_requests:\n            return state\n",
        new="",
        tests=("sim/test_fencing.py",),
    ),
    Mutant(
        name="takes a lost state for a new mesh",
        file="control_loop.py",
        old="            await self._refuse_lost_state()\n",
        new="            pass\n",
        tests=("sim/test_fencing.py",),
    ),
)
