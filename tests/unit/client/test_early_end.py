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

WAIT_S = 10.0

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
