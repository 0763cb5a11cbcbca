"""mesh.logs.captured_output: what is printed is passed on unchanged, and in whole lines to the log."""

from __future__ import annotations

import copy
import io
import os
import pickle
import threading
from collections.abc import Callable

import pytest

from mesh.logs.captured_output import CapturedOutput


def captured() -> tuple[CapturedOutput, io.StringIO, list[str]]:
    stream, lines = io.StringIO(), []
    return CapturedOutput(stream, lines.append), stream, lines


def test_lines_are_passed_on_and_kept() -> None:
    output, stream, lines = captured()
    print("one", 2, file=output)
    print("three\nfour", file=output)
    print("fi", end="", file=output)
    assert lines == ["one 2", "three", "four"]
    output.writelines(["ve", "\n\n"])
    assert lines == ["one 2", "three", "four", "five"]
    assert stream.getvalue() == "one 2\nthree\nfour\nfive\n\n"


def test_threads_do_not_mix_their_lines() -> None:
    output, _, lines = captured()
    output.write("one ")
    thread = threading.Thread(target=lambda: print("two", file=output))
    thread.start()
    thread.join()
    output.write("three\n")
    assert lines == ["two", "one three"]


def test_a_progress_bar_is_its_last_state() -> None:
    output, stream, lines = captured()
    for percent in range(101):
        output.write(f"\r{percent}%")
    output.write("\nwindows\r\n")
    assert lines == ["100%", "windows"]
    assert stream.getvalue().startswith("\r0%\r1%")


def test_an_endless_line_is_cut() -> None:
    output, _, lines = captured()
    for _ in range(100):
        output.write("x" * 10_000)
    assert 60_000 < max(map(len, lines)) < 80_000


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_is_no_more_copied_than_the_stream_is(duplicate: Callable[[object], object]) -> None:
    """As `copy.copy(sys.stdout)` says it anywhere else; it ended in a RecursionError."""
    with open(os.devnull, "w") as stream, pytest.raises(TypeError, match=r"cannot pickle '_io\.TextIOWrapper' object"):
        duplicate(CapturedOutput(stream, print))


def test_it_is_a_stream_like_the_one_that_it_stands_for() -> None:
    output, stream, _ = captured()
    assert not output.isatty()
    output.flush()
    stream.close()
    assert output.closed
