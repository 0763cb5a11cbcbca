"""The project's floors and goals, as ratios within one run, and whether a run reached them."""

from collections.abc import Iterator
from dataclasses import dataclass

Medians = dict[str, dict[str, float]]
"""System name to row name to the median of all rounds."""

RAW_GATEWAY_CPU_US = 150
"""CPU of raw grpc.aio per unary call at m=100 where the floors in µs were set: scales them to other machines."""
RAW_HANDLE_CPU_US = 240
"""The same at 64 in flight, client and server."""


@dataclass(frozen=True)
class Target:
    """A limit for `row` of `system`, divided by the same row of `base`; without a base, for the figure itself."""

    row: str
    base: str
    floor: float
    """What a run has to reach; an upper limit where less is better."""
    goal: float | None = None
    """What the project aims at."""
    system: str = "mesh"
    is_upper_limit: bool = False
    base_row: str = ""
    """Of the base, where it is another row."""

    def figure(self, medians: Medians) -> float | None:
        """The measured value, None if one side is missing."""
        own = medians.get(self.system, {}).get(self.row)
        if own is None or not self.base:
            return own
        base = medians.get(self.base, {}).get(self.base_row or self.row)
        return own / base if base else None

    def reaches(self, figure: float, limit: float) -> bool:
        return figure <= limit if self.is_upper_limit else figure >= limit


TARGETS = (
    Target("handle_unary_1", "raw", 1.2, 1.5),
    Target("handle_unary_1", "raw", 1.5, 2.2, system="mesh-inline"),
    Target("handle_unary_16", "raw", 3, 4),
    Target("handle_unary_64", "raw", 6, 8),
    Target("handle_unary_64_cpu", "raw", 33 / RAW_HANDLE_CPU_US, 24 / RAW_HANDLE_CPU_US, is_upper_limit=True),
    Target("handle_stream", "raw", 8, 12),
    Target("gateway_unary_1", "raw", 0.95, 1.1),
    Target("gateway_unary_1_p50", "serve-tuned", 1, is_upper_limit=True),
    Target("gateway_unary_16", "raw", 1.6, 2.5),
    Target("gateway_unary_16", "serve-tuned", 4),
    Target("gateway_unary_100", "raw", 2.8, 4),
    Target("gateway_unary_100", "serve-tuned", 8),
    Target("gateway_unary_100_cpu", "raw", 64 / RAW_GATEWAY_CPU_US, 44 / RAW_GATEWAY_CPU_US, is_upper_limit=True),
    Target("gateway_two_hops", "raw", 1.1, 2),
    Target("gateway_stream", "raw", 2.2, 4),
    Target("gateway_3mb", "raw", 1),
    Target("http_noop_1_p50", "uvicorn", 1.3, is_upper_limit=True),
    Target("http_noop_64", "uvicorn", 1),
    Target("http_noop_64", "serve", 10),
    Target("http_json_m100", "mesh", 0.5, base_row="gateway_unary_100"),
    Target("array_10mb", "serve", 1),
    Target("array_10mb", "serve-tuned", 1),
    Target("update_longest", "", 500, is_upper_limit=True),
    Target("update_failed", "", 0, is_upper_limit=True),
    Target("kill_longest", "", 500, is_upper_limit=True),
    Target("start_many", "serve", 1, is_upper_limit=True),
    Target("rss_over_bare", "", 25, is_upper_limit=True),
    Target("rss_after_calls", "", 5, is_upper_limit=True),
    Target("rss_after_cancels", "", 5, is_upper_limit=True),
    Target("rss_after_gateway_calls", "", 5, is_upper_limit=True),
    Target("rss_after_gateway_cancels", "", 5, is_upper_limit=True),
)


@dataclass(frozen=True)
class Verdict:
    """One target and the measured value."""

    target: Target
    figure: float | None

    @property
    def word(self) -> str:
        target, figure = self.target, self.figure
        if figure is None:
            return "not measured"
        if target.goal is not None and target.reaches(figure, target.goal):
            return "goal met"
        return "floor met" if target.reaches(figure, target.floor) else "NOT MET"


def judge(medians: Medians) -> Iterator[Verdict]:
    return (Verdict(target, target.figure(medians)) for target in TARGETS)
