"""mesh.cli.source_watch: which changes of files are seen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.cli import source_watch
from mesh.cli.source_watch import SourceWatch


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_written_new_and_removed_files_are_seen_once(tmp_path: Path) -> None:
    written, removed = write(tmp_path / "shop" / "app.py", "1"), write(tmp_path / "old.py")
    watch = SourceWatch(str(tmp_path))
    assert watch.changed() == []
    written.write_text("12")
    removed.unlink()
    write(tmp_path / "new" / "thing.py")
    assert watch.changed() == ["new/thing.py", "old.py", "shop/app.py"]
    assert watch.changed() == []


def test_editors_that_replace_a_file_are_seen(tmp_path: Path) -> None:
    """The new file may have the size and the time of the old one."""
    file = write(tmp_path / "app.py", "a = 1")
    watch = SourceWatch(str(tmp_path))
    other = write(tmp_path / "app.py.tmp", "a = 2")
    stat = file.stat()
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(file)
    assert watch.changed() == ["app.py"]


@pytest.mark.parametrize(
    "path",
    ["notes.txt", ".git/hook.py", "__pycache__/app.cpython-311.py", "node_modules/x/gyp.py", "env/lib/site.py"],
)
def test_what_is_no_source_of_the_application_is_left_out(tmp_path: Path, path: str) -> None:
    write(tmp_path / "env" / "pyvenv.cfg")
    watch = SourceWatch(str(tmp_path))
    write(tmp_path / path)
    assert watch.changed() == []


def test_the_configuration_file_is_watched_wherever_it_is(tmp_path: Path) -> None:
    file = write(tmp_path / "mesh.yaml")
    watch = SourceWatch(str(write(tmp_path / "code" / "app.py").parent), [str(file)])
    file.write_text("applications: []")
    assert watch.changed() == ["../mesh.yaml"]


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_watch, "FILES_MAX", 2)
    for number in range(3):
        write(tmp_path / f"{number}.py")
    with pytest.raises(ValueError, match="more than 2 Python files: name the directory"):
        SourceWatch(str(tmp_path))


def test_a_file_that_is_written_twice_in_a_second_is_imported_as_it_is(tmp_path: Path) -> None:
    """Its bytecode, which Python would take for current, is gone."""
    file = write(tmp_path / "price.py", "print(1)")
    stat = file.stat()
    watch = SourceWatch(str(tmp_path))
    assert imported(tmp_path) == "1\n"
    file.write_text("print(2)")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert watch.changed() == ["price.py"]
    assert imported(tmp_path) == "2\n"


def imported(directory: Path) -> str:
    command = [sys.executable, "-c", "import price"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=30, check=True).stdout
