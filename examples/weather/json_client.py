"""A client of the weather application that knows nothing of gRPC: JSON over HTTP, by the rules in weather.proto."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from examples.weather.report import Report, Stopwatch

NOON_IN_JULY = 4620
TIMEOUT_S = 30


def call_by_json(report: Report, url: str) -> None:
    """`url`: of a gateway."""
    with report.step("JSON"):
        unary(report, url)
        events(report, url)
        upload(report, url)
        wrong_city(report, url)
        described(report, url)


def unary(report: Report, url: str) -> None:
    watch = Stopwatch()
    reply = json.load(get(f"{url}/v1/forecasts/midtown?hour={NOON_IN_JULY}"))
    report.check("GET /v1/forecasts/midtown", reply["city"] == "midtown", f"{reply['celsius']:.1f} °C", watch.elapsed_s)


def events(report: Report, url: str) -> None:
    """As a page would get them by an EventSource."""
    watch = Stopwatch()
    answer = get(f"{url}/v1/forecasts/midtown:watch?hours=3", accept="text/event-stream")
    lines = [line.decode().strip() for line in answer if line.strip()]
    is_right = len(lines) == 5 and lines[-2] == "event: end"
    report.check("GET …:watch, server-sent events", is_right, f"{lines[0][:40]} …", watch.elapsed_s)


def upload(report: Report, url: str) -> None:
    lines = "".join(json.dumps({"city": "midtown", "hour": hour, "celsius": 12}) + "\n" for hour in range(24))
    headers = {"Content-Type": "application/x-ndjson"}
    watch = Stopwatch()
    request = urllib.request.Request(f"{url}/v1/observations", lines.encode(), headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        count = json.load(answer)["observations"]
    report.check("POST /v1/observations, lines", count == 24, f"{count} observations", watch.elapsed_s)


def wrong_city(report: Report, url: str) -> None:
    watch = Stopwatch()
    try:
        get(f"{url}/v1/forecasts/atlantis")
    except urllib.error.HTTPError as error:
        message = json.load(error)["message"]
        report.check("an unknown city", error.code == 404, f"{error.code} {message}", watch.elapsed_s)


def described(report: Report, url: str) -> None:
    paths = json.load(get(f"{url}/-/openapi/weather.json"))["paths"]
    with get(f"{url}/-/docs") as page:
        report.check("OpenAPI", "/v1/forecasts/{city}" in paths, f"{len(paths)} paths, to try at {page.url}")


def get(url: str, accept: str = "application/json") -> Any:
    request = urllib.request.Request(url, headers={"Accept": accept, "application": "weather"})
    return urllib.request.urlopen(request, timeout=TIMEOUT_S)
