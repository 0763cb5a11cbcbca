"""The browser's part of the demo, without a browser: the page, and what it would call by a WebSocket and gRPC-Web."""

from __future__ import annotations

import json
import urllib.request

from websockets.sync.client import connect

from examples.weather.report import Report, Stopwatch
from examples.weather.weather_pb2 import ForecastReply, ForecastRequest

TIMEOUT_S = 30
CITIES = ("midtown", "northport")
PREFIX_BYTES = 5
"""In front of each message of gRPC-Web: a byte of flags and the length."""


def call_like_a_page(report: Report, url: str) -> None:
    """`url`: of a gateway."""
    with report.step("a page"):
        page(report, url)
        websocket(report, url)
        grpc_web(report, url)


def page(report: Report, url: str) -> None:
    watch = Stopwatch()
    with urllib.request.urlopen(f"{url}/page", timeout=TIMEOUT_S) as answer:
        has_script = b'src="page.js"' in answer.read()
        report.check("GET /page", has_script, f"{answer.headers['content-type']} from {answer.url}", watch.elapsed_s)


def websocket(report: Report, url: str) -> None:
    """Each request is answered before the next one is sent."""
    watch = Stopwatch()
    address = f"ws{url.removeprefix('http')}/weather/weather.Weather/Converse"
    with connect(address, open_timeout=TIMEOUT_S, proxy=None) as socket:
        answers = []
        for city in CITIES:
            socket.send(json.dumps({"city": city}))
            answers.append(json.loads(socket.recv(TIMEOUT_S)))
        socket.send("")  # the request is complete
        is_over = not list(socket)
    came_back = ", ".join(f"{each['city']} {each['celsius']:.1f}" for each in answers)
    is_right = is_over and [each["city"] for each in answers] == list(CITIES)
    report.check("WebSocket Converse", is_right, came_back, watch.elapsed_s)


def grpc_web(report: Report, url: str) -> None:
    message = ForecastRequest(city="midtown").SerializeToString()
    body = b"\0" + len(message).to_bytes(PREFIX_BYTES - 1, "big") + message
    headers = {"Content-Type": "application/grpc-web+proto"}
    watch = Stopwatch()
    request = urllib.request.Request(f"{url}/weather/weather.Weather/Forecast", body, headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        received = answer.read()
    end = PREFIX_BYTES + int.from_bytes(received[1:PREFIX_BYTES], "big")
    reply = ForecastReply.FromString(received[PREFIX_BYTES:end])
    is_right = reply.city == "midtown" and b"grpc-status:" in received[end:]
    report.check("gRPC-Web Forecast", is_right, f"{reply.celsius:.1f} °C", watch.elapsed_s)
