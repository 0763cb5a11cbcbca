"""The benchmark's verdicts: ratios of one run against floors and goals."""

import pytest

from benchmarks.targets import RAW_GATEWAY_CPU_US, TARGETS, Target, Verdict, judge

MEDIANS = {
    "mesh": {"handle_unary_64": 30_000.0, "gateway_unary_1_p50": 900.0, "gateway_unary_100_cpu": 50.0},
    "serve": {"handle_unary_64": 1_000.0},
    "raw": {"gateway_unary_100_cpu": 100.0},
}


def test_a_target_is_the_ratio_of_two_systems_in_one_run() -> None:
    assert Target("handle_unary_64", "serve", 30).figure(MEDIANS) == 30


@pytest.mark.parametrize(("figure", "word"), [(2.7, "NOT MET"), (2.8, "floor met"), (4, "goal met")])
def test_what_equals_a_floor_or_a_goal_meets_it(figure: float, word: str) -> None:
    assert Verdict(Target("gateway_unary_100", "raw", 2.8, 4), figure).word == word


@pytest.mark.parametrize(("figure", "word"), [(0.5, "NOT MET"), (0.42, "floor met"), (0.29, "goal met")])
def test_where_less_is_better_limits_are_missed_above_them(figure: float, word: str) -> None:
    assert Verdict(Target("gateway_unary_100_cpu", "raw", 0.42, 0.3, is_upper_limit=True), figure).word == word


def test_cpu_time_is_judged_against_that_of_raw_in_the_same_run() -> None:
    """64 µs is the floor where raw needs 150 µs, so 42.7 µs where it needs 100."""
    verdict = next(verdict for verdict in judge(MEDIANS) if verdict.target.row == "gateway_unary_100_cpu")
    assert verdict.figure == 0.5
    assert verdict.target.floor * RAW_GATEWAY_CPU_US == 64
    assert verdict.word == "NOT MET"


def test_a_target_without_a_base_judges_the_figure_itself() -> None:
    assert Target("gateway_unary_1_p50", "", 1_000, is_upper_limit=True).figure(MEDIANS) == 900


def test_a_target_may_compare_two_rows() -> None:
    medians = {"mesh": {"http_json_m100": 600.0, "gateway_unary_100": 1_000.0}}
    assert Target("http_json_m100", "mesh", 0.5, base_row="gateway_unary_100").figure(medians) == 0.6


def test_a_goal_is_beyond_its_floor() -> None:
    for target in TARGETS:
        if target.goal is not None:
            assert target.reaches(target.goal, target.floor), target
            assert target.goal != target.floor, target


def test_a_system_that_failed_leaves_its_targets_unmeasured() -> None:
    words = {verdict.word for verdict in judge(MEDIANS) if verdict.target.base == "serve-tuned"}
    assert words == {"not measured"}
