"""mesh.stored: backup files are read back whole or refused with advice, and older forms become the present one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.stored.backup_file import from_file, to_file
from mesh.stored.schema_version import SCHEMA_VERSION, NewerSchemaError, migrated
from mesh.v1 import control_pb2
from tests.unit.controller.builders import application


def backup(*names: str, schema_version: int = SCHEMA_VERSION) -> control_pb2.MeshBackup:
    state = control_pb2.DesiredState(version=7, schema_version=schema_version, applications=map(application, names))
    return control_pb2.MeshBackup(state=state, contents={"code/1": b"\0\n\xff"}, unix_time_s=60.0)


def test_what_was_written_is_read() -> None:
    saved = backup("shop", "cart")
    assert from_file(to_file(saved), "shop.backup") == saved


def test_the_first_line_says_what_it_is() -> None:
    header = json.loads(to_file(backup("shop", "cart")).partition(b"\n")[0])
    assert header["format"] == "mesh backup"
    assert header["schema_version"] == SCHEMA_VERSION
    assert (header["applications"], header["written"]) == (["shop", "cart"], "1970-01-01 00:01:00 UTC")


def test_a_file_of_a_newer_mesh_is_refused_before_it_is_read() -> None:
    """What follows its first line may have any form."""
    head = to_file(backup("shop", schema_version=SCHEMA_VERSION + 1)).partition(b"\n")[0]
    with pytest.raises(NewerSchemaError, match=r"shop\.backup was written by a newer version of the mesh"):
        from_file(head + b"\nanother form", "shop.backup")


@given(st.binary(max_size=200))
def test_anything_else_is_no_backup(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"x is not a backup of a mesh. `mesh backup FILE` writes one."):
        from_file(data, "x")


@given(st.data())
def test_a_damaged_file_is_refused(data: st.DataObject) -> None:
    """Cut short, or with one other byte, wherever that is."""
    whole = to_file(backup("shop"))
    position = data.draw(st.integers(0, len(whole) - 1))
    is_cut = data.draw(st.booleans())
    damaged = whole[:position] if is_cut else whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :]
    try:
        read = from_file(damaged, "x")
    except ValueError:
        return
    assert read == backup("shop"), "only what people read in the first line may differ"


def test_an_older_state_becomes_one_of_the_present_form() -> None:
    """Its applications had no revisions: that of the state is one that no later change has."""
    old = control_pb2.DesiredState(version=41, applications=[application("shop")])
    new = migrated(old, "The state")
    assert (new.schema_version, [app.revision for app in new.applications]) == (SCHEMA_VERSION, [41])
    assert old.schema_version == 0, "what was given stays as it is"
    assert migrated(new, "The state") == new


def test_a_newer_state_is_refused_with_advice() -> None:
    with pytest.raises(NewerSchemaError, match=r"The state was written by a newer .* Use the version that wrote it"):
        migrated(control_pb2.DesiredState(schema_version=SCHEMA_VERSION + 1), "The state")
