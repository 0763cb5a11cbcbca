"""benchmarks.readme_table: the README shows exactly what a run measured."""

import pytest

from benchmarks.readme_table import SHOWN, table, with_table
from benchmarks.rows import ROWS

RUN = {
    "when": "2026-01-02T03-04-05",
    "machine": {"cpus": 2, "python": "3.11.7", "kernel": "6", "load_at_start": 0.1},
    "versions": {"grpcio": "1.75.1"},
    "rounds": 3,
    "seconds_per_row": 2.0,
    "medians": {
        "mesh": {"handle_unary_1": 3000.0, "update_longest": 12.5, "rss_over_bare": 12.5},
        "raw": {"handle_unary_1": 1500.0},
        "serve": {"handle_unary_1": 300.0},
        "serve-tuned": {},
    },
}


def test_rows_and_systems_without_figures_are_left_out() -> None:
    header, _, handle, update, *_ = table(RUN).splitlines()
    assert header.count("|") == handle.count("|") == update.count("|") == 7
    assert handle.startswith("| handle unary, 1 in flight, calls/s |")
    assert [cell.strip() for cell in handle.split("|")[-3:-1]] == ["10.00", "2.00"]
    assert "12.50 | – | – |  |  |" in update


def test_the_readme_has_the_most_telling_rows_only() -> None:
    assert "RSS" not in table(RUN)
    assert len(SHOWN) <= 20
    assert set(SHOWN) <= ROWS.keys()


def test_the_table_says_how_it_was_measured() -> None:
    last = table(RUN).splitlines()[-1]
    assert (
        last == "Run of 2026-01-02: 3 rounds of 2 s per row, 2 cores, load 0.1 before it, Python 3.11.7, grpcio 1.75.1."
    )


def test_only_what_stands_between_the_markers_changes() -> None:
    text = "a\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nb\n"
    once = with_table(text, "new")
    assert once == "a\n<!-- bench:begin -->\nnew\n<!-- bench:end -->\nb\n"
    assert with_table(once, "new") == once
    with pytest.raises(ValueError, match="put both back"):
        with_table("a", "new")
