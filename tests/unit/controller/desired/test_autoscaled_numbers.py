"""mesh.controller.desired.autoscaled_numbers: numbers stored beside the state are as good as numbers stored in it."""

import functools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cluster.keys import NUMBERS_KEY, STATE_KEY
from mesh.controller.desired.autoscaled_numbers import read_record, record_of, still_valid, with_numbers
from mesh.controller.desired.changes.desired_change import scaled, with_applications, without_application
from mesh.controller.desired.changes.generations import Proofs, with_proofs
from mesh.controller.desired.changes.invalid_change import InvalidChangeError
from mesh.controller.desired.changes.state_edits import Edit
from mesh.controller.desired.desired_keeper import DesiredKeeper
from mesh.controller.desired.desired_state import Desired, read_desired, scaled_to
from mesh.controller.store.desired_store import StateStore, StoreError
from mesh.options.deployments.autoscaling_options import AutoscalingConfig
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2
from tests.sim.fake_time import run_in_fake_time
from tests.unit.controller.builders import KEY, application, desired_of, with_application
from tests.unit.controller.dict_kv import DictKeyValue

RULES = AutoscalingConfig(max_replicas=9).to_message()
EMPTY = control_pb2.DesiredState(version=1)
OTHER = DeploymentKey("other", "Model")

# ---- Edits ---------------------------------------------------------------------------------------------------------


def deploying(app: control_pb2.ApplicationSpec) -> Edit:
    return functools.partial(with_applications, applications=[app], unix_time_s=0.0)


@st.composite
def deploys(draw: st.DrawFn) -> Edit:
    """Of one of two applications: another version, other bounds or a fixed number, in its place or as a canary."""
    most = draw(st.integers(1, 9))
    config = AutoscalingConfig(
        min_replicas=draw(st.integers(0, most)), max_replicas=most, external_scaler=draw(st.booleans())
    )
    rules = draw(st.sampled_from([config.to_message(), None]))
    app = application(draw(st.sampled_from([KEY.app, OTHER.app])), draw(st.sampled_from(["v1", "v2"])), 3, rules)
    app.deployments[0].options.user_config_json = draw(st.sampled_from(["1", "2"]))
    if draw(st.booleans()):
        app.traffic.percent = draw(st.sampled_from([1.0, 30.0, 100.0]))
    return deploying(app)


def proving(state: control_pb2.DesiredState) -> control_pb2.DesiredState:
    targets = read_desired(state).deployments.values()
    ran = {each.key: each.version for each in targets}
    return with_proofs(state, Proofs(ran, {each.key: (each.version, each.config_version) for each in targets}))


others = st.one_of(
    st.builds(lambda name: functools.partial(without_application, name=name), st.sampled_from([KEY.app, OTHER.app])),
    st.builds(lambda number: functools.partial(scaled, key=KEY, num_replicas=number), st.integers(1, 9)),
    st.just(proving),
)
edits: st.SearchStrategy[Edit] = st.one_of(deploys(), deploys(), others)
decided = st.dictionaries(st.sampled_from([KEY, OTHER, DeploymentKey("gone", "Model")]), st.integers(0, 9), min_size=1)


def edited(state: control_pb2.DesiredState, edit: Edit) -> control_pb2.DesiredState:
    """A change that is refused changes nothing."""
    try:
        return edit(state)
    except InvalidChangeError:
        return state


def targets(desired: Desired) -> object:
    """All that the planners see of replicas."""
    return desired.deployments, desired.retained, desired.canaries


# ---- Pure ----------------------------------------------------------------------------------------------------------


@given(st.lists(edits, max_size=8), decided, decided)
def test_a_reading_with_other_numbers_is_a_reading_of_the_state_with_them(
    changes: list[Edit], first: dict[DeploymentKey, int], second: dict[DeploymentKey, int]
) -> None:
    """Versions before, canaries and the limits of failures follow the number too."""
    state = functools.reduce(edited, changes, EMPTY)
    desired = before = read_desired(state)
    for numbers in (first, second):
        valid = still_valid(desired, {key: (_number(desired, key), number) for key, number in numbers.items()})
        state, desired = with_numbers(state, valid), scaled_to(desired, valid)
        assert targets(desired) == targets(read_desired(state))
    assert targets(before) == targets(read_desired(functools.reduce(edited, changes, EMPTY))), "it is a value"


def _number(desired: Desired, key: DeploymentKey) -> int:
    return desired.deployments[key].num_replicas if key in desired.deployments else 0


def test_a_decision_about_what_was_changed_meanwhile_changes_nothing() -> None:
    """Deployed again, deleted, or with a fixed number since then."""
    desired = desired_of(application("fixed"), application("scaled", autoscaling=RULES), application("same", "v1", 2))
    decisions = {DeploymentKey(app, "Model"): (2, 7) for app in ("fixed", "scaled", "gone")}
    assert still_valid(desired, decisions) == {DeploymentKey("scaled", "Model"): 7}
    assert still_valid(desired, {DeploymentKey("scaled", "Model"): (3, 7)}) == {}


def test_numbers_hold_for_the_state_beside_which_they_were_stored() -> None:
    state = with_application(EMPTY, application(autoscaling=RULES), 0.0)
    record = record_of(state, {KEY: 7})
    assert record is not None
    assert read_record(record, state) == {KEY: 7}
    assert read_record(record, with_application(state, application("other"), 0.0)) == {}


def test_numbers_of_what_does_not_autoscale_are_ignored() -> None:
    state = with_application(EMPTY, application(), 0.0)
    record = record_of(state, {KEY: 7, OTHER: 3})
    assert record is not None
    assert read_record(record, state) == {}


def test_a_record_has_a_limit() -> None:
    """Beyond it the whole state is stored."""
    record = record_of(EMPTY, {DeploymentKey("app", f"D{number}"): 1000 for number in range(90)})
    assert record is not None
    assert record.ByteSize() < 2048
    assert record_of(EMPTY, {DeploymentKey("app", f"D{number}"): 1000 for number in range(200)}) is None


# ---- Stored --------------------------------------------------------------------------------------------------------


class UnsureKeyValue(DictKeyValue):
    """Some writes are lost, or their answers are."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = ""

    def put(self, key: str, value: bytes) -> None:
        fails, self.fails = self.fails, ""
        if fails == "request":
            raise StoreError("the request was lost")
        super().put(key, value)
        if fails == "answer":
            raise StoreError("the answer was lost")


class Controller:
    """A DesiredKeeper, beside a model of it that stores everything in one piece."""

    def __init__(self) -> None:
        self.kv = UnsureKeyValue()
        self.keeper = DesiredKeeper(StateStore(self.kv), lambda desired: None)
        self.state = EMPTY
        """What the controller has in memory."""
        self.stored = EMPTY

    async def restart(self) -> None:
        self.keeper = DesiredKeeper(StateStore(self.kv), lambda desired: None)
        await self.keeper.load(control_pb2.GatewayOptions())
        self.state = self.stored

    async def change(self, edit: Edit, fails: str) -> None:
        self.kv.fails = fails
        try:
            await self.keeper.change(edit)
        except InvalidChangeError:
            assert edited(self.state, edit) == self.state
            return
        except StoreError:
            assert fails
            if fails == "answer":
                self.stored = edit(self.state)
            return
        assert not fails
        self.state = self.stored = edit(self.state)

    async def decide(self, numbers: dict[DeploymentKey, int], fails: str) -> None:
        desired = self.keeper.desired
        decisions = {key: (_number(desired, key), number) for key, number in numbers.items()}
        valid = still_valid(read_desired(self.state), decisions)
        after = with_numbers(self.state, valid)
        self.kv.fails = fails
        try:
            await self.keeper.scale(decisions)
        except StoreError:
            if fails == "answer":
                self.stored = after
            return
        self.state = after
        if valid:
            self.stored = after

    def check(self) -> None:
        assert targets(self.keeper.desired) == targets(read_desired(self.state))


failures = st.sampled_from(["", "", "", "request", "answer"])
steps = st.one_of(
    st.builds(lambda edit, fails: lambda it: it.change(edit, fails), edits, failures),
    st.builds(lambda numbers, fails: lambda it: it.decide(numbers, fails), decided, failures),
    st.builds(lambda numbers: lambda it: it.decide(numbers, ""), decided),
    st.just(Controller.restart),
)


@given(st.lists(steps, max_size=12))
def test_a_controller_and_its_successors_have_all_numbers_that_were_stored(
    taken: list[Callable[[Controller], object]],
) -> None:
    """Whatever is deployed, deleted, scaled, proven, lost on its way to the store, and decided meanwhile."""

    async def main() -> None:
        it = Controller()
        await it.restart()
        for step in taken:
            await step(it)  # type: ignore[misc]
            it.kv.fails = ""
            it.check()
        await it.restart()
        it.check()

    run_in_fake_time(main())


async def scaling_keeper(kv: DictKeyValue) -> DesiredKeeper:
    keeper = DesiredKeeper(StateStore(kv), lambda desired: None)
    await keeper.load(control_pb2.GatewayOptions())
    await keeper.change(deploying(application(autoscaling=RULES)))
    return keeper


def test_a_decision_leaves_the_stored_state_as_it_is() -> None:
    async def main() -> None:
        kv = DictKeyValue()
        keeper = await scaling_keeper(kv)
        before = kv.entries[STATE_KEY]
        await keeper.scale({KEY: (1, 5)})
        assert kv.entries[STATE_KEY] == before
        assert keeper.desired.deployments[KEY].num_replicas == 5
        # Back at the number of the state, there is nothing to add to it.
        await keeper.scale({KEY: (5, 1)})
        assert not control_pb2.AutoscaledNumbers.FromString(kv.entries[NUMBERS_KEY]).numbers

    run_in_fake_time(main())


def test_a_change_takes_the_numbers_into_the_state_and_removes_their_record() -> None:
    """Within the new bounds (item 234)."""

    async def main() -> None:
        kv = DictKeyValue()
        keeper = await scaling_keeper(kv)
        await keeper.scale({KEY: (1, 8)})
        app = application(autoscaling=AutoscalingConfig(max_replicas=6).to_message())
        await keeper.change(deploying(app))
        assert NUMBERS_KEY not in kv.entries
        stored = control_pb2.DesiredState.FromString(kv.entries[STATE_KEY])
        assert stored.applications[0].deployments[0].options.num_replicas == 6
        await keeper.scale({KEY: (6, 7)})
        await keeper.change(functools.partial(without_application, name="app"))
        assert not keeper.desired.deployments
        assert NUMBERS_KEY not in kv.entries

    run_in_fake_time(main())


def test_a_decision_after_a_change_that_may_be_stored_or_not_is_kept() -> None:
    """Numbers beside the state in memory would not hold for the one that is stored."""

    async def main() -> None:
        for fails in ("request", "answer"):
            kv = UnsureKeyValue()
            keeper = await scaling_keeper(kv)
            kv.fails = fails
            with pytest.raises(StoreError):
                await keeper.change(deploying(application("other")))
            await keeper.scale({KEY: (1, 5)})
            await keeper.scale({KEY: (5, 7)})
            assert NUMBERS_KEY in kv.entries, "since the first decision it is known again what is stored"
            successor = DesiredKeeper(StateStore(kv), lambda desired: None)
            await successor.load(control_pb2.GatewayOptions())
            assert successor.desired == keeper.desired
            assert successor.desired.deployments[KEY].num_replicas == 7

    run_in_fake_time(main())


def test_many_decisions_at_once_are_stored_with_the_state() -> None:
    async def main() -> None:
        kv = DictKeyValue()
        keeper = DesiredKeeper(StateStore(kv), lambda desired: None)
        await keeper.load(control_pb2.GatewayOptions())
        apps = [replace_name(application(autoscaling=RULES), f"app{number}") for number in range(200)]
        await keeper.change(functools.partial(with_applications, applications=apps, unix_time_s=0.0))
        await keeper.scale({key: (1, 9) for key in keeper.desired.deployments})
        assert NUMBERS_KEY not in kv.entries
        successor = DesiredKeeper(StateStore(kv), lambda desired: None)
        await successor.load(control_pb2.GatewayOptions())
        assert {each.num_replicas for each in successor.desired.deployments.values()} == {9}

    run_in_fake_time(main())


def replace_name(app: control_pb2.ApplicationSpec, name: str) -> control_pb2.ApplicationSpec:
    app.name, app.route_prefix = name, f"/{name}"
    return app


@pytest.mark.parametrize("record", [b"\xff no protobuf", b""])
def test_a_record_that_cannot_be_read_stops_no_controller(record: bytes) -> None:
    """Deployments begin with the numbers in the state, and follow their load again."""

    async def main() -> None:
        kv = DictKeyValue()
        keeper = await scaling_keeper(kv)
        await keeper.scale({KEY: (1, 5)})
        kv.entries[NUMBERS_KEY] = record
        successor = DesiredKeeper(StateStore(kv), lambda desired: None)
        await successor.load(control_pb2.GatewayOptions())
        stored = control_pb2.DesiredState.FromString(kv.entries[STATE_KEY])
        assert successor.desired == read_desired(stored)

    run_in_fake_time(main())
