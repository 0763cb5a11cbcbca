"""The desired state in the controller's memory: always what is stored."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from typing import Any

from mesh.controller.desired.autoscaled_numbers import (
    Numbers,
    read_record,
    record_of,
    still_valid,
    unlike_stored,
    with_numbers,
)
from mesh.controller.desired.changes.canaries import without_failed
from mesh.controller.desired.changes.deploy_history import deployed_at_s, recorded, records_of
from mesh.controller.desired.changes.desired_change import undone
from mesh.controller.desired.changes.generations import rollback_target
from mesh.controller.desired.changes.invalid_change import InvalidChangeError
from mesh.controller.desired.changes.state_edits import Edit
from mesh.controller.desired.desired_state import Desired, read_desired, scaled_to
from mesh.controller.store.descriptor_sets import new_sets, used_sets
from mesh.controller.store.desired_store import StateStore, StoreError
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings
from mesh.stored.schema_version import SCHEMA_VERSION
from mesh.v1 import control_pb2
from mesh.wire.blocking_work import Work, run_blocking

logger = logging.getLogger("mesh")

_NO_NUMBERS: Numbers = {}


class DesiredKeeper:
    def __init__(
        self,
        store: StateStore,
        on_change: Callable[[Desired], None],
        on_scaled: Callable[[Desired], None] = lambda desired: None,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        """`on_scaled` is called instead of `on_change` when only numbers of replicas have changed."""
        self._store = store
        self._on_change = on_change
        self._on_scaled = on_scaled
        self._unix_clock = unix_clock
        self._lock = asyncio.Lock()
        self._changes: set[asyncio.Task[int]] = set()
        self._state = control_pb2.DesiredState()
        self._numbers: Numbers = {}
        """Stored beside the state, see mesh/controller/desired/autoscaled_numbers.py."""
        self._may_differ_from_stored = False
        """A change failed, and its state may be stored nevertheless: numbers beside it would not hold for that."""
        self.desired = Desired()

    def __repr__(self) -> str:
        return f"<DesiredKeeper, state {self._state.version}, changes under way: {len(self._changes)}>"

    async def claim(self) -> bool:
        """Make this the only controller that stores anything. Returns whether there is a stored state."""
        await run_blocking(Work.STORE, self._store.claim)
        return await run_blocking(Work.STORE, self._store.has_state)

    async def stay_current(self) -> None:
        """Look from time to time whether a newer controller has taken over; runs until it is cancelled.

        Callers hear of what this one does as long as it lives, and of what the newer one does only after its end.
        """
        is_known = True
        while True:
            await asyncio.sleep(settings().controller.epoch_interval_s)
            try:
                await run_blocking(Work.STORE, self._store.check_epoch)
            except StoreError as error:
                if is_known:
                    logger.warning("the epoch of the controller could not be checked, trying again: %s", error)
                is_known = False
            else:
                is_known = True

    async def load(self, gateways: control_pb2.GatewayOptions) -> None:
        """Read what is stored, or make and store the first state."""
        state = await run_blocking(Work.STORE, self._store.load)
        if state is None:
            state = control_pb2.DesiredState(version=1, gateways=gateways, schema_version=SCHEMA_VERSION)
            await run_blocking(Work.STORE, self._store.save, state)
        numbers = read_record(await run_blocking(Work.STORE, self._store.load_numbers), state)
        self._take_over(
            state,
            scaled_to(read_desired(state), numbers),
            await run_blocking(Work.STORE, self._store.descriptor_sets, state),
            numbers,
        )

    @property
    def config_file(self) -> str | None:
        """The configuration file that was applied last."""
        return self._state.config_file if self._state.HasField("config_file") else None

    def history(self, name: str) -> control_pb2.HistoryReply:
        """The last deploys of an application, and when the version was deployed that a rollback goes back to."""
        before = rollback_target(self._state, name)
        return control_pb2.HistoryReply(
            records=records_of(self._state, name),
            rollback_unix_time_s=deployed_at_s(self._state, before) if before is not None else None,
        )

    def undoing(self, updates: Mapping[str, str], canaries: Mapping[str, str]) -> Edit:
        """The change that takes back updates and canaries of applications, with the reason of each."""
        now_s = self._unix_clock()

        def edit(state: control_pb2.DesiredState) -> control_pb2.DesiredState:
            return undone(without_failed(state, canaries), updates, now_s)

        return recorded(edit, now_s, "controller", is_rollback=True, reasons={**canaries, **updates})

    def preview(self, edit: Edit) -> tuple[control_pb2.DesiredState, control_pb2.DesiredState]:
        """The state and what `edit` would make of it. Stores nothing. Raises what `edit` raises."""
        state = with_numbers(self._state, self._numbers)
        return state, edit(state)

    async def read_with(
        self, keys_of: Callable[[control_pb2.DesiredState], Set[str]]
    ) -> tuple[control_pb2.DesiredState, dict[str, bytes], bytes]:
        """The state, what is stored under the keys that it has, and the packed servicer functions of `mesh.start`.

        No change takes place meanwhile, which would remove code.
        """
        async with self._lock:
            contents = await run_blocking(Work.STORE, self._store.contents, keys_of(self._state))
            state = with_numbers(self._state, self._numbers)
            return state, contents, await run_blocking(Work.STORE, self._store.servicer_functions)

    async def change(
        self,
        edit: Edit,
        code_of: Sequence[control_pb2.ApplicationSpec] = (),
        on_stored: Callable[[], None] = lambda: None,
    ) -> int:
        """Store an edited state, and code and descriptors of applications before it. Returns its version.

        What `edit` raises is raised before anything is stored. A change that has begun is finished, even when no caller
        waits for it any more: cut off in the middle, it would be stored and not known, or be stored over the next one.
        `on_stored` is called when it is. An `edit` that returns the state that it gets, as that of a repeated request
        does, stores nothing.
        """
        return await self._finished(self._change(edit, code_of, on_stored))

    async def try_change(self, edit: Edit, what: str, events: Sequence[str] = (), level: int = logging.INFO) -> None:
        """Like `change`, for the controller itself: waits only as long as a turn may, and raises nothing.

        While another change is being stored it does nothing: the end of that wakes the loop, which looks again. `what`:
        for the log, like the `events` once it is stored, however long that takes.
        """
        await self._in_time(lambda: self.change(edit, on_stored=partial(_log, events, level)), what)

    async def try_scale(self, decisions: Mapping[DeploymentKey, tuple[int, int]], events: Sequence[str]) -> None:
        """Like `try_change`, for `scale`."""
        await self._in_time(lambda: self.scale(decisions, events), "the numbers of replicas")

    async def scale(self, decisions: Mapping[DeploymentKey, tuple[int, int]], events: Sequence[str] = ()) -> int:
        """Store what autoscaling has decided: the numbers of replicas before and after. Returns the state's version.

        A deployment that was changed meanwhile keeps its number. The `events` are logged once it is stored.
        """
        return await self._finished(self._scale(decisions, events))

    async def _in_time(self, change: Callable[[], Coroutine[Any, Any, int]], what: str) -> None:
        if self._changes:
            return
        try:
            async with asyncio.timeout(settings().controller.store_timeout_s):
                await change()
        except TimeoutError:
            logger.warning("the cluster's KV is slow: %s will change when they are stored", what)
        except StoreError as error:
            logger.warning("%s could not be stored, trying again: %s", what, error)
        except InvalidChangeError as error:  # one application must not keep the turn from the others
            logger.warning("%s are refused, trying again: %s", what, error)

    async def _finished(self, change: Coroutine[Any, Any, int]) -> int:
        task = asyncio.create_task(change, name="change of the desired state")
        self._changes.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[int]) -> None:
        self._changes.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved here too, because the caller may be gone

    async def _change(
        self, edit: Edit, code_of: Sequence[control_pb2.ApplicationSpec], on_stored: Callable[[], None]
    ) -> int:
        async with self._lock:
            before = with_numbers(self._state, self._numbers)
            changed = edit(before)
            if changed is before:
                return self._state.version
            descriptor_sets = {**self.desired.descriptor_sets, **new_sets(code_of)}
            for application in code_of:
                await run_blocking(Work.STORE, self._store.put_code, application)
            # Code that was just stored is in the state by its key only.
            await self._store_whole(edit(before) if code_of else changed, descriptor_sets)
            on_stored()
            return self._state.version

    async def _scale(self, decisions: Mapping[DeploymentKey, tuple[int, int]], events: Sequence[str]) -> int:
        async with self._lock:
            decided = still_valid(self.desired, decisions)
            if not decided:
                return self._state.version
            numbers = unlike_stored(self.desired, {**self._numbers, **decided})
            record = None if self._may_differ_from_stored else record_of(self._state, numbers)
            if record is None:
                await self._store_whole(with_numbers(self._state, numbers), self.desired.descriptor_sets)
            else:
                await run_blocking(Work.STORE, self._store.save_numbers, record)
                self._numbers = numbers
                self.desired = scaled_to(self.desired, decided)
                self._on_scaled(self.desired)
            _log(events, logging.INFO)
            return self._state.version

    async def _store_whole(self, state: control_pb2.DesiredState, descriptor_sets: Mapping[str, bytes]) -> None:
        # Read first: what cannot be read must not be stored, or no later controller could start.
        desired = read_desired(state)
        self._may_differ_from_stored = True
        await run_blocking(Work.STORE, self._store.save, state)
        self._may_differ_from_stored = False
        self._take_over(state, desired, used_sets(state, descriptor_sets))

    def _take_over(
        self,
        state: control_pb2.DesiredState,
        desired: Desired,
        descriptor_sets: Mapping[str, bytes],
        numbers: Numbers = _NO_NUMBERS,
    ) -> None:
        self._state = state
        self._numbers = numbers
        self.desired = replace(desired, descriptor_sets=descriptor_sets)
        self._on_change(self.desired)


def _log(events: Iterable[str], level: int) -> None:
    for event in events:
        logger.log(level, "%s", event)
