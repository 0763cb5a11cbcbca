"""benchmarks.report: what a run prints, and the JSON that the README's table comes from."""

import json
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.rows import ROWS

FIGURES = {"mesh": {"gateway_unary_1": [900.0, 1_000.0, 1_100.0]}, "raw": {"gateway_unary_1": [1_000.0] * 3}}
MEDIANS = {"mesh": {"gateway_unary_1": 1_000.0}, "raw": {"gateway_unary_1": 1_000.0}}


def test_the_tables_show_measured_rows_and_all_targets(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_report(MEDIANS, load_at_start=0.1)
    printed = capsys.readouterr().out
    words = [line.split() for line in printed.splitlines()]
    row = ["gateway", "unary,", "m=1,", "req/s"]
    assert [*row, "1,000", "–", "1,000", "–", "–", "–", "1.00"] in words
    assert [*row, "mesh", "×", "raw", "grpc.aio", "at", "least", "0.95", "1.1", "1.00", "floor", "met"] in words
    assert ROWS["rss_gateway"] not in printed
    assert "idle before the run (load 0.1)" in printed


def test_a_loaded_machine_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_report(MEDIANS, load_at_start=3.0)
    assert "other work (load 3.0 before the run)" in capsys.readouterr().out


def test_the_json_has_every_round_and_the_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    run = json.loads(report.write_json(FIGURES, MEDIANS, 3, 2.0, 0.24).read_text())
    assert run["figures"] == FIGURES
    assert run["machine"]["load_at_start"] == 0.2
    verdicts = {(target["row"], target["base"]): target["verdict"] for target in run["targets"]}
    assert verdicts["gateway_unary_1", "raw"] == "floor met"
    assert verdicts["gateway_two_hops", "raw"] == "not measured"
