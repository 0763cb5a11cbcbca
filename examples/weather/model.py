"""The model of one city: temperature by hour of the year, fitted by least squares."""

from __future__ import annotations

import csv

import numpy as np

from examples.weather.generate import CSV_PATH, HOURS_PER_YEAR


class CityModel:
    """Yearly and daily waves, and a daily wave that changes with the season."""

    def __init__(self, city: str, hours: np.ndarray, celsius: np.ndarray) -> None:
        self.city = city
        self._features = features(hours)
        self._celsius = celsius
        self._weights = fit(self._features, celsius)
        self._random = np.random.default_rng(0)

    @classmethod
    def from_csv(cls, city: str) -> CityModel:
        """Fit the city's rows of data/temperatures.csv. Raises KeyError for a city without data."""
        with CSV_PATH.open(newline="") as file:
            rows = [(float(row["hour"]), float(row["celsius"])) for row in csv.DictReader(file) if row["city"] == city]
        if not rows:
            raise KeyError(f"There is no data for a city named {city!r}.")
        hours, celsius = np.array(rows).T
        return cls(city, hours, celsius)

    def predict(self, hour: float) -> float:
        return float(features(np.array([hour]))[0] @ self._weights)

    def predict_resampled(self, hour: float) -> float:
        """The forecast of a model that is fitted to a sample of the rows, drawn with replacement."""
        chosen = self._random.integers(len(self._celsius), size=len(self._celsius))
        weights = fit(self._features[chosen], self._celsius[chosen])
        return float(features(np.array([hour]))[0] @ weights)


def features(hours: np.ndarray) -> np.ndarray:
    year = 2 * np.pi * (hours / HOURS_PER_YEAR)
    day = 2 * np.pi * (hours / 24)
    seasons = [np.ones_like(hours), np.cos(year), np.sin(year)]
    times_of_day = [np.ones_like(hours), np.cos(day), np.sin(day)]
    return np.stack([season * time for season in seasons for time in times_of_day], axis=1)


def fit(rows: np.ndarray, celsius: np.ndarray) -> np.ndarray:
    weights: np.ndarray = np.linalg.lstsq(rows, celsius, rcond=None)[0]
    return weights
