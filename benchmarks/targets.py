"""The project's targets, as ratios within one run, and whether a run reached them."""

from collections.abc import Iterator
from dataclasses import dataclass

Medians = dict[str, dict[str, float]]
"""System name to row name to the median of all rounds."""


@dataclass(frozen=True)
class Target:
    """A limit for `row` of `system`, divided by the same row of `base`; without a base, for the figure itself."""

    row: str
    base: str
    limit: float
    system: str = "mesh"
    is_upper_limit: bool = False

    def figure(self, medians: Medians) -> float | None:
        """The measured value, None if one side is missing."""
        own = medians.get(self.system, {}).get(self.row)
        if own is None or not self.base:
            return own
        base = medians.get(self.base, {}).get(self.row)
        return own / base if base else None

    def is_met(self, figure: float) -> bool:
        return figure <= self.limit if self.is_upper_limit else figure >= self.limit


TARGETS = (
    Target("handle_unary_64", "serve", 30),
    Target("handle_unary_64", "serve-tuned", 10),
    Target("handle_unary_16", "serve", 20),
    Target("handle_unary_16", "serve-tuned", 7),
    Target("handle_unary_1", "serve", 5),
    Target("handle_unary_1", "serve-tuned", 3),
    Target("handle_unary_1", "serve-tuned", 4, system="mesh-inline"),
    Target("handle_stream", "serve", 20),
    Target("handle_stream", "serve-tuned", 5),
    Target("gateway_unary_100", "raw", 0.7),
    Target("gateway_unary_100", "serve-tuned", 2.5),
    Target("gateway_latency_1", "raw", 3, is_upper_limit=True),
    Target("gateway_unary_1", "serve", 5),
    Target("array_10mb", "serve", 1),
    Target("array_10mb", "serve-tuned", 1),
    Target("update_longest", "", 500, is_upper_limit=True),
    Target("update_failed", "", 0, is_upper_limit=True),
    Target("kill_longest", "", 500, is_upper_limit=True),
    Target("start_many", "serve", 1, is_upper_limit=True),
    Target("rss_over_bare", "", 25, is_upper_limit=True),
    Target("rss_after_calls", "", 5, is_upper_limit=True),
    Target("rss_after_cancels", "", 5, is_upper_limit=True),
)


@dataclass(frozen=True)
class Verdict:
    """One target and the measured value."""

    target: Target
    figure: float | None

    @property
    def word(self) -> str:
        if self.figure is None:
            return "not measured"
        return "met" if self.target.is_met(self.figure) else "NOT MET"


def judge(medians: Medians) -> Iterator[Verdict]:
    return (Verdict(target, target.figure(medians)) for target in TARGETS)
