"""What the benchmark takes from h2load's report and log."""

import pytest

from benchmarks import h2load
from benchmarks.h2load import Load, Request, WebPort, answered, latencies_us, rate, require_answers

REPORT = """finished in 1.25s, 16.02 req/s, 2.4KB/s
requests: 20 total, 20 started, 20 done, 20 succeeded, 0 failed, 0 errored, 0 timeout
traffic: 3KB (3000) total, 2.8KB ({}) data
"""


def test_answers_with_a_message_in_their_body_count() -> None:
    assert answered(REPORT.format(20 * 143), 100) == 20


def test_answers_that_carry_only_an_error_status_do_not_count() -> None:
    with pytest.raises(RuntimeError, match="did not get the answers"):
        answered(REPORT.format(20 * 9), 100)


def test_an_exact_run_needs_every_answer() -> None:
    require_answers(REPORT.format(20 * 143), 20, 100)
    with pytest.raises(RuntimeError, match="the 21 answers"):
        require_answers(REPORT.format(20 * 143), 21, 100)


def test_a_run_without_any_answer_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="the 20 answers"):
        require_answers("0 succeeded, 20 failed\n(0) data\n", 20, 100)


def test_the_rate_is_that_of_the_whole_run() -> None:
    assert rate(REPORT) == 16.02


def test_the_log_has_a_latency_per_call() -> None:
    assert latencies_us("1700000000000000\t200\t345\n1700000000000900\t200\t1200\n") == [345, 1200]


def test_a_request_of_http_without_a_body_is_a_get() -> None:
    port = WebPort("127.0.0.1:1", Request("/noop", {"a": "b"}, answer_bytes=2))
    with h2load._command(port, Load(), ["-n", "1"]) as command:
        assert command == ["h2load", "-c1", "-m1", "-n", "1", "--h1", "-H", "a: b", "http://127.0.0.1:1/noop"]


def test_streams_are_those_of_each_connection() -> None:
    assert Load(streams=100, connections=64).in_flight == 6_400
