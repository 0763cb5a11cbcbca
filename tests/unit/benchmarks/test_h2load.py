"""What the benchmark takes from h2load's report."""

import pytest

from benchmarks.h2load import answered

REPORT = "requests: 20 total, 20 started, 20 done, 20 succeeded, 0 failed\ntraffic: 3KB (3000) total, 2.8KB ({}) data\n"


def test_answers_with_a_message_in_their_body_count() -> None:
    assert answered(REPORT.format(20 * 143)) == 20


def test_answers_that_carry_only_an_error_status_do_not_count() -> None:
    with pytest.raises(RuntimeError, match="did not get the answers"):
        answered(REPORT.format(20 * 9))


def test_a_run_without_any_answer_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="did not get the answers"):
        answered("0 succeeded, 20 failed\n(0) data\n")
