"""The generator of data/temperatures.csv. The data is synthetic: five invented cities.

A year of temperatures, every third day at 0, 6, 12 and 18 o'clock: a yearly wave, a daily wave that is stronger in
summer, and weather as a slowly wandering error. Run `python -m examples.weather.generate` to get the same file again.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CSV_PATH = Path(__file__).parent / "data" / "temperatures.csv"
SEED = 20260101
HOURS_PER_YEAR = 8760
PERSISTENCE = 0.7
"""Share of a deviation that is left in the next measurement."""


@dataclass(frozen=True, slots=True)
class City:
    name: str
    mean: float
    """Mean of the year. This and the following fields are in degrees Celsius."""
    yearly: float
    daily: float
    noise: float


CITIES = (
    City("northport", mean=2.0, yearly=14.0, daily=2.5, noise=2.5),
    City("eastvale", mean=9.5, yearly=11.0, daily=5.0, noise=2.0),
    City("midtown", mean=12.0, yearly=8.0, daily=4.0, noise=1.5),
    City("westmoor", mean=10.5, yearly=5.0, daily=2.0, noise=1.8),
    City("southbay", mean=21.0, yearly=4.0, daily=6.0, noise=1.0),
)


def main() -> None:
    random = np.random.default_rng(SEED)
    hours = np.array([day * 24 + hour for day in range(0, 365, 3) for hour in (0, 6, 12, 18)], dtype=float)
    with CSV_PATH.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("city", "hour", "celsius"))
        for city in CITIES:
            writer.writerows(rows(city, hours, random))


def rows(city: City, hours: np.ndarray, random: np.random.Generator) -> Iterator[tuple[str, int, float]]:
    year = 2 * np.pi * (hours / HOURS_PER_YEAR)
    day = 2 * np.pi * (hours / 24)
    summer = -np.cos(year - 0.35)  # the warmest day comes three weeks after the longest
    afternoon = -np.cos(day - 0.6)
    deviation = 0.0
    for hour, warm, bright in zip(hours, summer, afternoon, strict=True):
        deviation = PERSISTENCE * deviation + random.normal(0, city.noise)
        celsius = city.mean + city.yearly * warm + city.daily * (1 + 0.4 * warm) * bright + deviation
        yield city.name, int(hour), round(float(celsius), 1)


if __name__ == "__main__":
    main()
