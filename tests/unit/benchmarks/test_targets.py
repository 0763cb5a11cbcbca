"""The benchmark's verdicts: ratios of one run against the floors."""

from benchmarks.targets import Target, Verdict, judge

MEDIANS = {"mesh": {"handle_unary_64": 30_000.0, "gateway_latency_1": 900.0}, "serve": {"handle_unary_64": 1_000.0}}


def test_a_target_is_the_ratio_of_two_systems_in_one_run() -> None:
    assert Target("handle_unary_64", "serve", 30).figure(MEDIANS) == 30


def test_a_ratio_that_equals_its_floor_meets_it() -> None:
    assert Verdict(Target("handle_unary_64", "serve", 30), 30.0).word == "met"


def test_an_upper_limit_is_missed_above_it() -> None:
    assert Verdict(Target("gateway_latency_1", "raw", 3, is_upper_limit=True), 3.1).word == "NOT MET"


def test_a_target_without_a_base_judges_the_figure_itself() -> None:
    assert Target("gateway_latency_1", "", 1_000, is_upper_limit=True).figure(MEDIANS) == 900


def test_a_system_that_failed_leaves_its_targets_unmeasured() -> None:
    words = {verdict.word for verdict in judge(MEDIANS) if verdict.target.base == "serve-tuned"}
    assert words == {"not measured"}
