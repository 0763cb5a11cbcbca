"""A Python client of the weather application: the same calls as client.py, through deployment handles."""

from __future__ import annotations

import itertools
import time

import mesh
from examples.weather import weather_pb2
from examples.weather.client import CITIES, DEADLINE_S, LONG_WORK, NOON_IN_JULY
from examples.weather.report import Report, Stopwatch, describe_stop, latencies, poll
from mesh.exceptions import DeadlineExceededError


def call_through_handles(report: Report) -> None:
    forecaster = mesh.get_deployment_handle("Forecaster", "weather")
    logbook = mesh.get_deployment_handle("Logbook", "weather")
    with report.step("unary"):
        unary(forecaster, report)
    with report.step("many at the same time"):
        many_at_the_same_time(forecaster, report)
    with report.step("stream"):
        stream(forecaster, report)
    with report.step("cancel"):
        cancel(forecaster, logbook, report)
    with report.step("deadline"):
        deadline(forecaster, logbook, report)


def unary(forecaster: mesh.DeploymentHandle, report: Report) -> None:
    forecast = forecaster.forecast.options(multiplexed_model_id="midtown")
    request = weather_pb2.ForecastRequest(hour=NOON_IN_JULY)
    watch = Stopwatch()
    reply = forecast.remote(request).result(timeout_s=30)
    report.check("handle forecast", reply.city == "midtown", f"{reply.celsius:.1f} °C", watch.elapsed_s)
    measured = latencies(lambda: forecast.remote(request).result(timeout_s=30), 200)
    report.check("handle forecast, again", True, measured)


def many_at_the_same_time(forecaster: mesh.DeploymentHandle, report: Report) -> None:
    count = 40
    watch = Stopwatch()
    responses = [
        forecaster.forecast.options(multiplexed_model_id=city).remote(weather_pb2.ForecastRequest(hour=hour))
        for hour in range(count)
        for city in CITIES
    ]
    replies = [response.result(timeout_s=30) for response in responses]
    is_right = [(reply.hour, reply.city) for reply in replies] == list(itertools.product(range(count), CITIES))
    report.check(f"{len(replies)} parallel calls, 5 models", is_right, "each its own city and hour", watch.elapsed_s)


def stream(forecaster: mesh.DeploymentHandle, report: Report) -> None:
    request = weather_pb2.WatchRequest(first_hour=NOON_IN_JULY, hours=24)
    watch = Stopwatch()
    items = list(forecaster.watch.options(multiplexed_model_id="eastvale", stream=True).remote(request))
    report.check("handle stream", len(items) == 24, f"{len(items)} items", watch.elapsed_s)


def cancel(forecaster: mesh.DeploymentHandle, logbook: mesh.DeploymentHandle, report: Report) -> None:
    label = f"cancelled-{time.time_ns()}"
    request = weather_pb2.WatchRequest(hours=100_000, interval_ms=50, label=label)
    items = forecaster.watch.options(multiplexed_model_id="midtown", stream=True).remote(request)
    count = len(list(itertools.islice(items, 3)))
    cancelled_at_s = time.time()
    items.cancel()
    report.check(f"cancel a stream after {count} items", *_stopped(logbook, label, cancelled_at_s))


def deadline(forecaster: mesh.DeploymentHandle, logbook: mesh.DeploymentHandle, report: Report) -> None:
    label = f"late-{time.time_ns()}"
    request = weather_pb2.ForecastRequest(resamples=LONG_WORK, label=label)
    forecast = forecaster.forecast.options(multiplexed_model_id="midtown", timeout_s=DEADLINE_S)
    began_at_s, watch = time.time(), Stopwatch()
    try:
        outcome = str(forecast.remote(request).result(timeout_s=30))
    except DeadlineExceededError as error:
        outcome = type(error).__name__
    is_right = outcome == DeadlineExceededError.__name__
    report.check(f"minutes of work in {DEADLINE_S} s", is_right, outcome, watch.elapsed_s)
    report.check("that work is stopped", *_stopped(logbook, label, began_at_s + DEADLINE_S))


def _stopped(logbook: mesh.DeploymentHandle, label: str, caused_at_s: float) -> tuple[bool, str]:
    def seen_at_s() -> float | None:
        entries = logbook.entries.remote().result(timeout_s=30)
        return next((entry.seen_at_s for entry in entries if entry.label == label), None)

    return describe_stop(poll(seen_at_s), caused_at_s)
