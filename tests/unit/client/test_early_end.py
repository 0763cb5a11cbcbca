"""mesh.client.early_end: a signal ends a command that starts Ray, whatever the main thread is doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mesh.client.early_end import ending_at_once
from tests.unit.fakes.waiting import until

WAIT_S = 30.0

STARTING = """
import signal, subprocess, time
from mesh.client.early_end import ending_at_once

def wait_for_daemons(number, frame):
    time.sleep(60)

signal.signal(signal.{name}, wait_for_daemons)
with ending_at_once():
    daemon = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE)
    print(daemon.pid, int(daemon.stdout.readline()), flush=True)
    while True:
        time.sleep(60)
"""
"""The handler waits, as that of Ray does, which takes the place of every other one while Ray starts."""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_process_whose_handlers_wait(name: str) -> None:
    command = [sys.executable, "-c", STARTING.format(name=name)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        daemon, its_child = map(int, process.stdout.readline().split())
        process.send_signal(getattr(signal, name))
        shown, _ = process.communicate(timeout=WAIT_S)
    assert (process.returncode, shown) == (0, "\nStopping ...\n")
    until(lambda: not is_running(daemon) and not is_running(its_child), "the end of what it has started")


WAITS_NATIVELY = """
import ctypes, signal, subprocess
from mesh.client.early_end import ending_at_once

signal.signal(signal.SIGTERM, lambda number, frame: None)
with ending_at_once():
    daemon = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE)
    print(daemon.pid, int(daemon.stdout.readline()), flush=True)
    native, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(256)
    native.pthread_mutex_lock(mutex)
    native.pthread_mutex_lock(mutex)
"""
"""`PyDLL` keeps the interpreter, as Ray does while it waits for the port of its GCS: no thread of Python runs. A mutex
that is held already is waited for without end, signals or not."""


@pytest.mark.parametrize("to_group", [True, False])
def test_a_signal_ends_a_process_none_of_whose_threads_runs(to_group: bool) -> None:
    command = [sys.executable, "-c", WAITS_NATIVELY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        daemon, its_child = map(int, process.stdout.readline().split())
        try:
            (os.killpg if to_group else os.kill)(process.pid, signal.SIGTERM)
            shown, _ = process.communicate(timeout=WAIT_S)
        finally:
            process.kill()
    assert (process.returncode, shown) == (-signal.SIGKILL, "\nStopping ...\n")
    until(lambda: not is_running(daemon) and not is_running(its_child), "the end of what it has started")


def test_nothing_is_left_after_the_block() -> None:
    children = children_of(os.getpid())
    with ending_at_once(lambda: None):
        assert len(children_of(os.getpid()) - children) == 1
    assert children_of(os.getpid()) == children


def children_of(process: int) -> set[int]:
    return {int(each) for path in Path(f"/proc/{process}/task").glob("*/children") for each in path.read_text().split()}


def test_it_ends_also_when_nothing_can_be_shown() -> None:
    """As behind SIGHUP: the terminal is gone."""
    command = [sys.executable, "-c", STARTING.format(name="SIGHUP")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        daemon, its_child = map(int, process.stdout.readline().split())
        process.stdout.close()
        try:
            process.send_signal(signal.SIGHUP)
            assert process.wait(WAIT_S) == 0
        finally:
            process.kill()
    until(lambda: not is_running(daemon) and not is_running(its_child), "the end of what it has started")


def test_what_a_daemon_had_started_ends_although_the_daemon_ended_first() -> None:
    """As after a signal to the whole group, which some of Ray's agents outlive."""
    command = [sys.executable, "-c", STARTING.format(name="SIGTERM")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        daemon, its_child = map(int, process.stdout.readline().split())
        os.kill(daemon, signal.SIGKILL)
        until(lambda: not is_running(daemon), "the end of the daemon")
        assert is_running(its_child)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WAIT_S)
    until(lambda: not is_running(its_child), "the end of what the daemon has started")


def test_children_that_it_had_before_go_on() -> None:
    """As in `sidecar & exec mesh run ...`."""
    script = f'sleep 60 & echo $!; exec {sys.executable} -c "$0"'
    command = ["sh", "-c", script, STARTING.format(name="SIGTERM")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        sidecar = int(process.stdout.readline())
        try:
            daemon, _ = map(int, process.stdout.readline().split())
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT_S) == 0
            until(lambda: not is_running(daemon), "the end of what it has started")
            assert is_running(sidecar)
        finally:
            os.kill(sidecar, signal.SIGKILL)


def is_running(process: int) -> bool:
    """A zombie is not: what its parent left may wait for the system."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_other_signals_and_the_time_after_are_left_alone() -> None:
    ended = threading.Event()
    seen: list[int] = []
    before = {
        each: signal.signal(each, lambda number, frame: seen.append(number)) for each in (signal.SIGUSR1, signal.SIGINT)
    }
    wakeup_fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup_fd)
    try:
        with ending_at_once(ended.set):
            signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert seen == [signal.SIGUSR1, signal.SIGINT]
    assert not ended.is_set()
    assert signal.set_wakeup_fd(wakeup_fd) == wakeup_fd
    assert not [each for each in threading.enumerate() if each.name == "mesh-early-end"]


def test_the_first_signal_counts() -> None:
    ended: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        with ending_at_once(lambda: ended.append("end")):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended == ["end"]
