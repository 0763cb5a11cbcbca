"""mesh.controller.desired.desired_store: state and code in the KV."""

import pytest

from mesh.cluster.keys import CODE_PREFIX, CONTROLLER_ADDRESS_KEY
from mesh.controller.desired.desired_store import StateStore
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


def test_starts_of_controllers_are_counted(kv: DictKeyValue) -> None:
    assert [StateStore(kv).count_start() for _ in range(3)] == [1, 2, 3]


def test_a_new_mesh_has_no_state(store: StateStore) -> None:
    assert store.load() is None


def test_what_was_saved_is_loaded(store: StateStore) -> None:
    """The stored state is complete (item 182)."""
    state = deployed(store, control_pb2.DesiredState(), "v1")
    assert store.load() == state


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


def test_the_address_stands_where_clients_look_for_it(store: StateStore, kv: DictKeyValue) -> None:
    store.put_address("10.0.0.1:7000")
    assert kv.entries == {CONTROLLER_ADDRESS_KEY: b"10.0.0.1:7000"}
