"""mesh.controller.store.desired_store: state and code in the KV."""

import pytest

from mesh.cluster.keys import (
    CODE_PREFIX,
    CONTROLLER_ADDRESS_KEY,
    CONTROLLER_FAILURE_KEY,
    CONTROLLER_STARTS_KEY,
    DESCRIPTORS_PREFIX,
    STATE_KEY,
)
from mesh.controller.store.desired_store import FencedError, StateStore, StoreError, UnreadableStateError
from mesh.stored.schema_version import SCHEMA_VERSION, NewerSchemaError
from mesh.v1 import control_pb2
from tests.unit.controller.builders import application, with_application
from tests.unit.controller.dict_kv import DictKeyValue


@pytest.fixture
def kv() -> DictKeyValue:
    return DictKeyValue()


@pytest.fixture
def store(kv: DictKeyValue) -> StateStore:
    return StateStore(kv)


def deployed(store: StateStore, state: control_pb2.DesiredState, version: str) -> control_pb2.DesiredState:
    app = application(version=version)
    store.put_code(app)
    state = with_application(state, app, 0.0)
    store.save(state)
    return state


def test_a_controller_stores_nothing_after_a_newer_one_has_started(kv: DictKeyValue) -> None:
    """Ray took its node for dead, but it lives."""
    ended: list[str] = []
    old, new = StateStore(kv, on_fenced=lambda: ended.append("old")), StateStore(kv)
    old.claim()
    old.save(control_pb2.DesiredState(version=1))
    new.claim()
    assert (old.epoch, new.epoch) == (1, 2)
    new.save(control_pb2.DesiredState(version=2))
    with pytest.raises(FencedError, match="controller 2 of this mesh has taken over"):
        old.save(control_pb2.DesiredState(version=3))
    assert ended == ["old"]
    assert kv.entries[STATE_KEY] == control_pb2.DesiredState(version=2).SerializeToString()


def test_a_controller_that_was_replaced_does_not_say_why_its_start_failed(kv: DictKeyValue) -> None:
    """A client that waits for the newer one would be shown it, and the newer one's own reason be lost."""
    old, new = StateStore(kv), StateStore(kv)
    old.claim()
    old.put_failure("port 9000 is in use")
    assert kv.entries[CONTROLLER_FAILURE_KEY] == b"port 9000 is in use"
    new.claim()
    with pytest.raises(FencedError):
        old.put_failure("of the old one")
    new.put_failure("a name that is no text: \udcff")
    with pytest.raises(FencedError):
        old.put_address("old:1")
    assert kv.entries[CONTROLLER_FAILURE_KEY] == b"a name that is no text: ?"
    new.put_address("new:1")
    assert CONTROLLER_FAILURE_KEY not in kv.entries, "it serves"


def test_a_controller_that_was_replaced_while_it_started_removes_no_code(kv: DictKeyValue) -> None:
    """That of a deploy which the newer one has not stored yet looks like waste to it."""
    old, new = StateStore(kv), StateStore(kv)
    old.claim()
    old.save(control_pb2.DesiredState(version=1))
    new.claim()
    app = application()
    new.put_code(app)
    with pytest.raises(FencedError):
        old.load()
    assert kv.get(app.deployments[0].code_key) is not None


def test_a_state_that_cannot_be_read_is_named_and_stays(store: StateStore, kv: DictKeyValue) -> None:
    """Without it every replica would be an orphan: nothing is taken for a state instead."""
    kv.put(STATE_KEY, b"\xff")
    with pytest.raises(UnreadableStateError, match=rf"{STATE_KEY} of the cluster's key-value store.*go on serving"):
        store.load()
    assert kv.entries == {STATE_KEY: b"\xff"}


def test_a_count_of_starts_that_cannot_be_read_is_begun_again(
    kv: DictKeyValue, caplog: pytest.LogCaptureFixture
) -> None:
    kv.put(CONTROLLER_STARTS_KEY, b"many")
    store = StateStore(kv)
    store.claim()
    assert (store.epoch, kv.entries[CONTROLLER_STARTS_KEY]) == (1, b"1")
    kv.put(CONTROLLER_STARTS_KEY, b"\xff")
    store.check_epoch()
    store.check_epoch()
    assert [CONTROLLER_STARTS_KEY in line for line in caplog.messages] == [True, True], "each time once"
    newer = StateStore(kv)
    newer.claim()
    with pytest.raises(FencedError):
        store.check_epoch()


def test_a_new_mesh_has_no_state(store: StateStore) -> None:
    assert store.load() is None


def test_what_was_saved_is_loaded(store: StateStore) -> None:
    """The stored state is complete (item 182)."""
    state = deployed(store, control_pb2.DesiredState(schema_version=SCHEMA_VERSION), "v1")
    assert store.load() == state


def test_a_state_of_a_newer_controller_is_not_read(store: StateStore, kv: DictKeyValue) -> None:
    newer = control_pb2.DesiredState(schema_version=SCHEMA_VERSION + 1)
    store.save(newer)
    with pytest.raises(NewerSchemaError, match="The stored desired state was written by a newer version of the mesh"):
        store.load()
    assert kv.entries[STATE_KEY] == newer.SerializeToString()


def test_code_is_stored_apart_under_its_digest(store: StateStore, kv: DictKeyValue) -> None:
    state = deployed(store, control_pb2.DesiredState(), "v1")
    (spec,) = state.applications[0].deployments
    assert spec.code == b""
    assert spec.code_key.startswith(CODE_PREFIX)
    assert kv.entries[spec.code_key] == b"code of v1"


def test_code_without_a_reference_is_removed(store: StateStore, kv: DictKeyValue) -> None:
    state = deployed(store, control_pb2.DesiredState(), "v1")
    deployed(store, state, "v2")
    assert [kv.entries[key] for key in kv.keys(CODE_PREFIX)] == [b"code of v2"]


def with_descriptors(store: StateStore, state: control_pb2.DesiredState, data: bytes) -> control_pb2.DesiredState:
    app = application()
    app.descriptors = data
    store.put_code(app)
    state = with_application(state, app, 0.0)
    store.save(state)
    return state


def test_descriptors_are_stored_apart_under_their_digest(store: StateStore, kv: DictKeyValue) -> None:
    """The state is written at each change, and stays small."""
    state = with_descriptors(store, control_pb2.DesiredState(), b"descriptors")
    digest = state.applications[0].descriptors_digest
    assert state.applications[0].descriptors == b""
    assert kv.entries[DESCRIPTORS_PREFIX + digest] == b"descriptors"
    assert store.descriptor_sets(state) == {digest: b"descriptors"}


def test_descriptors_without_a_reference_are_removed(store: StateStore, kv: DictKeyValue) -> None:
    state = with_descriptors(store, control_pb2.DesiredState(), b"old")
    with_descriptors(store, state, b"new")
    assert [kv.entries[key] for key in kv.keys(DESCRIPTORS_PREFIX)] == [b"new"]


def test_descriptors_that_are_lost_stop_no_controller(store: StateStore, kv: DictKeyValue) -> None:
    state = with_descriptors(store, control_pb2.DesiredState(), b"descriptors")
    store_key = DESCRIPTORS_PREFIX + state.applications[0].descriptors_digest
    kv.delete(store_key)
    assert store.descriptor_sets(state) == {}


def test_the_address_stands_where_clients_look_for_it(store: StateStore, kv: DictKeyValue) -> None:
    store.put_address("10.0.0.1:7000")
    assert kv.entries == {CONTROLLER_ADDRESS_KEY: b"10.0.0.1:7000"}


def test_a_controller_that_starts_slowly_leaves_clients_with_a_newer_one(kv: DictKeyValue) -> None:
    """They would look at the address of one that ends, and the newer one does not store its own again."""
    slow, newer = StateStore(kv), StateStore(kv)
    slow.claim()
    newer.claim()
    newer.put_address("10.0.0.2:7000")
    with pytest.raises(FencedError, match="controller 2 of this mesh has taken over"):
        slow.put_address("10.0.0.1:7000")
    assert kv.entries[CONTROLLER_ADDRESS_KEY] == b"10.0.0.2:7000"


def test_a_state_whose_waste_cannot_be_removed_is_stored(
    kv: DictKeyValue, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure would say that it is not. The next change removes it."""
    state = deployed(store, control_pb2.DesiredState(), "v1")

    def fail(prefix: str) -> list[str]:
        raise StoreError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(kv, "keys", fail)
        store.save(control_pb2.DesiredState(version=9, schema_version=SCHEMA_VERSION))
    assert store.load() == control_pb2.DesiredState(version=9, schema_version=SCHEMA_VERSION)
    assert state.version != 9
    assert kv.keys(CODE_PREFIX) == []
