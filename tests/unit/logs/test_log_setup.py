"""mesh.logs.log_setup: what user code logs and prints reaches the log file of its process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_BEGIN = """
import logging, sys
from mesh.cluster import ray_core
from mesh.context import REQUEST, Request
from mesh.logs.log_files import LogName
from mesh.logs.log_setup import begin_process
from mesh.v1.control_pb2 import LoggingOptions
from mesh.wire.request_context import RequestContext

ray_core.logs_directory = lambda: sys.argv[1]
ray_core.name_this_actor = lambda actor, name: None
ray_core.process_ids = lambda: {"node_id": "n1"}
logs = begin_process(object(), LogName("replica", "shop", "Shop", "a1"), LoggingOptions(level=logging.INFO))
REQUEST.set(Request(RequestContext("r1")))
"""


def logged(directory: Path, program: str) -> tuple[list[str], list[str], str]:
    """Lines of the log file without their times, lines of stderr, and stdout."""
    ran = subprocess.run(
        [sys.executable, "-c", _BEGIN + program, str(directory)], capture_output=True, text=True, check=True, timeout=60
    )
    file = directory / "mesh" / "replica#shop#Shop#a1.log"
    lines = file.read_text().splitlines() if file.exists() else []
    return [line[24:] if line[:4].isdecimal() else line for line in lines], ran.stderr.splitlines(), ran.stdout


def test_records_reach_the_file_and_stderr_in_one_form(tmp_path: Path) -> None:
    """Whatever logger they come from (items 156, 238)."""
    lines, stderr, stdout = logged(tmp_path, "logging.getLogger('mine').info('loaded'); logging.info('again')")
    assert lines == ["INFO replica shop/Shop#a1 [r1] mine: loaded", "INFO replica shop/Shop#a1 [r1] root: again"]
    assert [line[24:] for line in stderr] == lines
    assert stdout == ""


def test_the_logger_of_ray_serve_is_one_like_any_other(tmp_path: Path) -> None:
    """Ray has a handler above it, as in each of its processes (item 238)."""
    program = (
        "import ray._private.log; ray._private.log.generate_logging_config(); logger = logging.getLogger('ray.serve')\n"
        "logger.warning('loud'); logger.info('quiet', extra={'log_to_stderr': False}); logger.debug('dropped')\n"
        "logs.configure(LoggingOptions(level=logging.DEBUG)); logger.getChild('x').debug('heard')"
    )
    lines, stderr, _ = logged(tmp_path, program)
    assert lines == [
        "WARNING replica shop/Shop#a1 [r1] ray.serve: loud",
        "INFO replica shop/Shop#a1 [r1] ray.serve: quiet",
        "DEBUG replica shop/Shop#a1 [r1] ray.serve.x: heard",
    ]
    assert [line.rpartition(": ")[2] for line in stderr] == ["loud", "heard"]


def test_a_record_may_be_for_the_file_only(tmp_path: Path) -> None:
    """As code for Ray Serve asks for it (item 238)."""
    lines, stderr, _ = logged(
        tmp_path, "logging.getLogger('mine').info('quiet', extra={'log_to_stderr': False}); logging.info('loud')"
    )
    assert [line.rpartition(": ")[2] for line in lines] == ["quiet", "loud"]
    assert [line.rpartition(": ")[2] for line in stderr] == ["loud"]


def test_a_reader_of_the_records_takes_none_away(tmp_path: Path) -> None:
    """It gets those of its level; what is printed is none."""
    program = (
        "reader = logging.Handler(logging.WARNING); seen = []; reader.emit = lambda record: seen.append(record.msg)\n"
        "logs.copy_to(reader); mine = logging.getLogger('mine'); mine.info('one'); mine.error('two'); print(seen)"
    )
    lines, stderr, stdout = logged(tmp_path, program)
    assert [line.rpartition(" ")[2] for line in lines] == ["one", "two", "['two']"]
    assert len(stderr) == 2
    assert stdout == "['two']\n"


def test_a_process_whose_stderr_is_closed_logs_on(tmp_path: Path) -> None:
    """Else all code that logs would fail, such as that which ends the replica."""
    lines, stderr, stdout = logged(tmp_path, "sys.stderr.close(); logging.getLogger('mine').info('one'); print('two')")
    assert [line.rpartition(": ")[2] for line in lines] == ["one", "two"]
    assert (stderr, stdout) == ([], "two\n")


def test_what_is_printed_reaches_the_file_and_stdout(tmp_path: Path) -> None:
    """Except for what Ray prints to mark the output of its processes."""
    lines, stderr, stdout = logged(tmp_path, "print(':actor_name:x'); print('loaded'); print('odd', file=sys.stderr)")
    assert lines == ["INFO replica shop/Shop#a1 [r1] stdout: loaded", "INFO replica shop/Shop#a1 [r1] stderr: odd"]
    assert (stdout, stderr) == (":actor_name:x\nloaded\n", ["odd"])


@pytest.mark.parametrize(
    "configuration",
    [
        "logging.basicConfig(level=logging.DEBUG, format='mine %(message)s')",
        "import logging.config; logging.config.dictConfig({'version': 1, 'disable_existing_loggers': False,"
        " 'formatters': {'f': {'format': 'mine %(message)s'}},"
        " 'handlers': {'h': {'class': 'logging.StreamHandler', 'formatter': 'f'}},"
        " 'root': {'level': 'DEBUG', 'handlers': ['h']}})",
    ],
)
def test_a_configuration_of_the_user_wins_at_any_time(tmp_path: Path, configuration: str) -> None:
    """What it writes is kept with the time and the request (item 238)."""
    program = f"logging.warning; logger = logging.getLogger('mine'); logger.info('before')\n{configuration}\n"
    lines, stderr, _ = logged(tmp_path, program + "logger.debug('after')")
    assert lines == ["INFO replica shop/Shop#a1 [r1] mine: before", "INFO replica shop/Shop#a1 [r1] stderr: mine after"]
    assert stderr[1:] == ["mine after"]


def test_a_process_without_a_log_file_logs_to_stderr(tmp_path: Path) -> None:
    (tmp_path / "mesh").write_text("not a directory")
    _, stderr, stdout = logged(tmp_path, "logging.info('loaded'); print('loaded')")
    assert "this process has no log file" in stderr[0]
    assert stderr[1].endswith("INFO replica shop/Shop#a1 [r1] root: loaded")
    assert stdout == "loaded\n"


def test_format_level_and_directory_may_change_while_the_process_runs(tmp_path: Path) -> None:
    """Of a deployment whose `logging_config` changes (item 237)."""
    program = (
        "print('one');"
        f"logs.configure(LoggingOptions(level=logging.WARNING, is_json=True, directory={str(tmp_path / 'other')!r}));"
        "logging.info('dropped'); logging.warning('two'); print('three')"
    )
    lines, stderr, _ = logged(tmp_path, program)
    assert [json.loads(line)["message"] for line in lines] == ["two", "three"]
    assert (tmp_path / "mesh" / "replica#shop#Shop#a1.log.1").read_text().endswith("stdout: one\n")
    assert (tmp_path / "other" / "replica#shop#Shop#a1.log").exists()
    assert json.loads(stderr[0])["message"] == "two"


def test_a_directory_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("not a directory")
    program = f"logs.configure(LoggingOptions(level=logging.INFO, directory={str(tmp_path / 'taken')!r})); print('on')"
    lines, _, _ = logged(tmp_path, program)
    assert "this process has no log file in" in lines[0]
    assert lines[1] == "INFO replica shop/Shop#a1 [r1] stdout: on"
