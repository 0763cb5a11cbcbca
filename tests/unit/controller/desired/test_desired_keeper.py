"""mesh.controller.desired.desired_keeper: memory and store agree, whichever caller disappears meanwhile."""

import asyncio
import functools
import threading

import pytest

from mesh.controller.desired.desired_keeper import DesiredKeeper, Edit
from mesh.controller.desired.desired_state import Desired
from mesh.controller.repeated_requests import once
from mesh.controller.store.desired_store import StateStore
from mesh.v1 import control_pb2
from tests.unit.controller.builders import application, with_application
from tests.unit.controller.dict_kv import DictKeyValue

WAIT_S = 30.0


class SlowKeyValue(DictKeyValue):
    """The first write waits for `gate`."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.gate = threading.Event()

    def put(self, key: str, value: bytes) -> None:
        if not self.entered.is_set():
            self.entered.set()
            assert self.gate.wait(WAIT_S)
        super().put(key, value)


def adding(name: str) -> Edit:
    return functools.partial(with_application, application=application(name), unix_time_s=0.0)


def test_a_change_whose_caller_is_gone_is_finished_before_the_next() -> None:
    """A client that is gone cancels its request in the middle of the writing."""

    async def main() -> None:
        kv = SlowKeyValue()
        keeper = DesiredKeeper(StateStore(kv), lambda desired: None)
        stored_ones: list[str] = []
        first = asyncio.create_task(keeper.change(adding("one"), on_stored=lambda: stored_ones.append("one")))
        assert await asyncio.to_thread(kv.entered.wait, WAIT_S)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        second = asyncio.create_task(keeper.change(adding("two")))
        await asyncio.sleep(0)
        kv.gate.set()
        await second
        stored = StateStore(kv).load()
        assert stored is not None
        assert [app.name for app in stored.applications] == ["one", "two"]
        assert set(keeper.desired.applications) == {"one", "two"}
        assert stored_ones == ["one"]

    asyncio.run(main())


def test_a_repeated_request_stores_nothing_and_restarts_nothing() -> None:
    """Failed attempts of what was deployed since are not forgotten for it."""

    async def main() -> None:
        kv = DictKeyValue()
        keeper = DesiredKeeper(StateStore(kv), lambda desired: None)
        await keeper.load(control_pb2.GatewayOptions())
        stored_ones: list[str] = []

        async def deploy(name: str, request_id: str) -> int:
            app = application(name)
            edit = once(functools.partial(with_application, application=app, unix_time_s=0.0), request_id)
            return await keeper.change(edit, [app], on_stored=lambda: stored_ones.append(request_id))

        await deploy("one", "first")
        version = await deploy("two", "second")
        kv.put = raising  # type: ignore[method-assign]
        assert await deploy("one", "first") == version
        assert stored_ones == ["first", "second"]

    asyncio.run(main())


def raising(key: str, value: bytes) -> None:
    raise AssertionError(f"{key} is stored again")


def test_a_state_that_cannot_be_read_is_not_stored() -> None:
    """No later controller could start with it."""

    async def main() -> None:
        kv = DictKeyValue()
        known: list[Desired] = []
        keeper = DesiredKeeper(StateStore(kv), known.append)
        await keeper.load(control_pb2.GatewayOptions())
        before = dict(kv.entries)
        unreadable = application()
        unreadable.deployments[0].options.autoscaling.aggregation = 99  # type: ignore[assignment]
        with pytest.raises(KeyError):
            await keeper.change(functools.partial(with_application, application=unreadable, unix_time_s=0.0))
        assert kv.entries == before
        assert len(known) == 1

    asyncio.run(main())


def test_descriptors_are_in_memory_as_long_as_an_application_has_them() -> None:
    """Those of an earlier controller are read again (item 183)."""

    async def main() -> None:
        kv = DictKeyValue()
        keeper = DesiredKeeper(StateStore(kv), lambda desired: None)
        await keeper.load(control_pb2.GatewayOptions())
        app = application("one")
        app.descriptors = b"descriptors of one"
        await keeper.change(functools.partial(with_application, application=app, unix_time_s=0.0), [app])
        await keeper.change(adding("two"))
        digest = keeper.desired.applications["one"].descriptors_digest
        assert keeper.desired.descriptor_sets == {digest: b"descriptors of one"}
        successor = DesiredKeeper(StateStore(kv), lambda desired: None)
        await successor.load(control_pb2.GatewayOptions())
        assert successor.desired.descriptor_sets == {digest: b"descriptors of one"}
        await successor.change(adding("one"))
        assert successor.desired.descriptor_sets == {}

    asyncio.run(main())


def test_the_undoing_of_what_has_changed_since_leaves_the_state_in_memory_as_it_is() -> None:
    """It is an edit like others: the next version is a message of its own."""

    async def main() -> None:
        kv = DictKeyValue()
        keeper = DesiredKeeper(StateStore(kv), lambda desired: None)
        await keeper.change(adding("one"))
        state, undone = keeper.preview(keeper.undoing({"one": "it failed"}, {}))
        assert undone.version > state.version
        assert [record.is_rollback for record in state.history] == []

    asyncio.run(main())
