"""mesh.logs.log_files: a file per process, of bounded size and number, that its name identifies."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.defaults.control_settings import LogSettings
from mesh.logs.log_files import LogFile, LogName, make_room, open_log_file
from mesh.settings import settings

REPLICA = LogName("replica", "shop", "Shop", "a1")
NAMES = [REPLICA, LogName("policy", "shop", "Shop"), LogName("gateway", process_id="g1"), LogName("controller")]


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MESH_LOG_FILE_MAX_BYTES", "1000")
    monkeypatch.setenv("MESH_LOG_FILES_PER_PROCESS", "3")
    settings.cache_clear()
    yield
    settings.cache_clear()


def record(text: str) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": text})


def test_names_are_readable() -> None:
    assert [name.file_name for name in NAMES] == [
        "replica#shop#Shop#a1.log",
        "policy#shop#Shop.log",
        "gateway#g1.log",
        "controller.log",
    ]
    assert [name.component for name in NAMES] == [
        "replica shop/Shop#a1",
        "policy shop/Shop",
        "gateway g1",
        "controller",
    ]
    assert [name.title for name in NAMES] == [
        "shop/Shop#a1",
        "mesh-policy shop/Shop",
        "mesh-gateway g1",
        "mesh-controller",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_name_is_read_back_before_and_after_it_is_renamed(name: LogName) -> None:
    assert LogName.read(name.file_name) == LogName.read(f"{name.file_name}.2") == name


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_any_name_of_a_user_is_a_file_name(app: str, deployment: str) -> None:
    name = LogName("replica", app, deployment, "a1")
    assert "/" not in name.file_name
    assert LogName.read(name.file_name) == name


@pytest.mark.parametrize("file_name", ["worker-1.out", "replica#a#b.log", ".log", "other.log", "controller#x.log"])
def test_other_files_are_not_ours(file_name: str) -> None:
    assert LogName.read(file_name) is None


@pytest.mark.usefixtures("small_files")
def test_a_file_that_is_full_is_renamed_and_the_oldest_is_deleted(tmp_path: Path) -> None:
    file = open_log_file(tmp_path / "mesh", REPLICA, tmp_path / "mesh")
    for number in range(100):
        file.handle(record(f"{number:03d} {'x' * 96}"))
    file.close()
    assert sorted(path.name for path in (tmp_path / "mesh").iterdir()) == [
        f"{REPLICA.file_name}{suffix}" for suffix in ("", ".1", ".2")
    ]
    assert all(path.stat().st_size <= 1000 for path in (tmp_path / "mesh").iterdir())
    assert (tmp_path / "mesh" / REPLICA.file_name).read_text().splitlines()[-1].startswith("099")


def test_a_file_that_was_deleted_begins_again(tmp_path: Path) -> None:
    file = open_log_file(tmp_path, REPLICA, tmp_path)
    file.handle(record("one"))
    (tmp_path / REPLICA.file_name).unlink()
    file.handle(record("two"))
    file.close()
    assert (tmp_path / REPLICA.file_name).read_text() == "two\n"


def test_a_file_in_another_directory_is_found_by_a_link(tmp_path: Path) -> None:
    """What was written before stays beside the link, and the way back replaces it."""
    home, other = tmp_path / "mesh", tmp_path / "other"
    for directory, text in ((home, "one"), (other, "two"), (home, "three"), (other, "four")):
        file = open_log_file(directory, REPLICA, home)
        assert file.directory == directory
        file.handle(record(text))
        file.close()
    assert (other / REPLICA.file_name).read_text() == (home / REPLICA.file_name).read_text() == "two\nfour\n"
    assert (home / f"{REPLICA.file_name}.1").read_text() == "three\n"


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = LogFile(tmp_path / REPLICA.file_name)
    file.stream.close()
    file.handle(record("one"))
    assert capsys.readouterr().err == ""


def test_room_is_made_by_deleting_what_was_not_written_to_for_longest(tmp_path: Path) -> None:
    names = [f"replica#shop#Shop#{number}.log" for number in range(6)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (number, number))
    (tmp_path / "other.txt").write_bytes(b"x" * 10_000)
    make_room(tmp_path, LogSettings())
    assert len(list(tmp_path.iterdir())) == 7
    make_room(tmp_path, replace(LogSettings(), node_files_max=4))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.txt", *names[2:]]
    make_room(tmp_path, replace(LogSettings(), node_max_bytes=250))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.txt", *names[4:]]
