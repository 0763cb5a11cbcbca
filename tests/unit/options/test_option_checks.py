"""The checks that options share, for numbers of which Python can do little."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mesh.options import option_checks

HUGE = 10**5000
"""More digits than Python writes out, and than a floating-point number may have."""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (HUGE, "x must be a finite number, got one that is too large."),
        (-HUGE, "x must be at least 0, got one of hundreds of digits."),
        (math.inf, "x must be a finite number, got one that is too large."),
        (-math.inf, "x must be at least 0, got -inf."),
        (math.nan, "x must be at least 0, got nan."),
        (-1, "x must be at least 0, got -1."),
    ],
    ids=["huge", "-huge", "inf", "-inf", "nan", "-1"],
)
def test_a_number_is_finite(value: Any, text: str) -> None:
    with pytest.raises(ValueError, match="x must be") as caught:
        option_checks.number("x", value)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (HUGE, "x must be between 1 and 9, got one of hundreds of digits."),
        (-HUGE, "x must be between 1 and 9, got one of hundreds of digits."),
        (10, "x must be between 1 and 9, got 10."),
    ],
    ids=["huge", "-huge", "10"],
)
def test_a_whole_number_is_in_its_range(value: Any, text: str) -> None:
    with pytest.raises(ValueError, match="x must be") as caught:
        option_checks.whole_number("x", value, 1, 9)
    assert str(caught.value) == text
