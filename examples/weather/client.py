"""A gRPC client of the weather service: only grpcio and the generated stubs, nothing of the mesh.

`python -m examples.weather.client [ADDRESS]` prints its calls and their results. Exit code 1: a check failed.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator

import grpc

from examples.weather import weather_pb2, weather_pb2_grpc
from examples.weather.report import Report, Stopwatch, describe_stop, latencies, poll

CITIES = ("northport", "eastvale", "midtown", "westmoor", "southbay")
NOON_IN_JULY = 24.0 * 190 + 12
METADATA = (("application", "weather"),)
CALL_TIMEOUT_S = 30.0
DEADLINE_S = 0.3
LONG_WORK = 1_000_000
"""Resamples that take minutes."""


def main() -> int:
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9000"
    report = Report()
    with grpc.insecure_channel(address) as channel:
        stub = weather_pb2_grpc.WeatherStub(channel)
        for part in (
            unary,
            every_city,
            by_metadata,
            server_stream,
            client_stream,
            bidi_stream,
            cancel,
            deadline,
            error,
        ):
            with report.step(part.__name__):
                part(stub, report)
    return 1 if report.failures else 0


def unary(stub: weather_pb2_grpc.WeatherStub, report: Report) -> None:
    request = weather_pb2.ForecastRequest(city="midtown", hour=NOON_IN_JULY, resamples=200)
    watch = Stopwatch()
    reply = stub.Forecast(request, metadata=METADATA, timeout=CALL_TIMEOUT_S)
    came_back = f"midtown, noon in July: {reply.celsius:.1f} ± {reply.standard_error:.2f} °C"
    report.check("unary Forecast", 10 < reply.celsius < 30 and reply.standard_error > 0, came_back, watch.elapsed_s)
    quick = weather_pb2.ForecastRequest(city="midtown", hour=NOON_IN_JULY)
    measured = latencies(lambda: stub.Forecast(quick, metadata=METADATA, timeout=CALL_TIMEOUT_S), 200)
    report.check("unary Forecast, again", True, measured)


def every_city(stub: weather_pb2_grpc.WeatherStub, report: Report) -> None:
    """Five models, but the replicas hold four: one must be evicted."""
    watch = Stopwatch()
    replies = [
        stub.Forecast(
            weather_pb2.ForecastRequest(city=city, hour=NOON_IN_JULY), metadata=METADATA, timeout=CALL_TIMEOUT_S
        )
        for _ in range(4)
        for city in CITIES
    ]
    came_back = ", ".join(f"{reply.city} {reply.celsius:.0f}" for reply in replies[: len(CITIES)])
    is_right = [reply.city for reply in replies] == 4 * list(CITIES)
    report.check("4 rounds over 5 models", is_right, f"{came_back} °C", watch.elapsed_s)
    replicas = {reply.served_by for reply in replies}
    report.check("the models' replicas", len(replicas) == 2, f"{len(replicas)} replicas answered")


def by_metadata(stub: weather_pb2_grpc.WeatherStub, report: Report) -> None:
    """The model is named in metadata only. The second call reaches the replica that has loaded it."""
    metadata = (*METADATA, ("multiplexed_model_id", "southbay"), ("request_id", "demo-7"))
    request = weather_pb2.ForecastRequest(hour=NOON_IN_JULY)
    replicas = set()
    watch = Stopwatch()
    for _ in range(10):
        reply, call = stub.Forecast.with_call(request, metadata=metadata, timeout=CALL_TIMEOUT_S)
        replicas.add(reply.served_by)
    request_id = dict(call.trailing_metadata()).get("request_id")
    is_right = reply.city == "southbay" and request_id == "demo-7" and len(replicas) == 1
    came_back = f"{reply.city} from {len(replicas)} replica, trailer request_id={request_id!r}"
    report.check("10 times model id as metadata", is_right, came_back, watch.elapsed_s)


def server_stream(stub: weather_pb2_grpc.WeatherStub, report: Report) -> None:
    request = weather_pb2.WatchRequest(city="eastvale", first_hour=NOON_IN_JULY - 12, hours=24)
    watch = Stopwatch()
    day = [reply.celsius for reply in stub.Watch(request, metadata=METADATA, timeout=CALL_TIMEOUT_S)]
    came_back = f"{len(day)} hours, {min(day):.1f} to {max(day):.1f} °C"
    report.check("server stream Watch", len(day) == 24, came_back, watch.elapsed_s)


def client_stream(stub: weather_pb2_grpc.WeatherStub, report: Report) -> None:
    observations = [
        weather_pb2.Observation(city=city, hour=NOON_IN_JULY, celsius=20) for city in ("midtown", "westmoor")
    ]
    watch = Stopwatch()
    reply = stub.Report(iter(observations), metadata=METADATA, timeout=CALL_TIMEOUT_S)
    came_back = f"{reply.observations} observations, off by {reply.mean_absolute_error:.1f} °C on average"
    report.check("client stream Report", reply.observations == 2, came_back, watch.elapsed_s)


def bidi_stream(stub: weather_pb2_grpc.WeatherStub, report: Report) -> None:
    """Each request depends on the response before it, so both directions must flow at the same time."""
    answered: list[weather_pb2.ForecastReply] = []

    def questions() -> Iterator[weather_pb2.ForecastRequest]:
        for number, city in enumerate(CITIES):
            while len(answered) < number:
                time.sleep(0.001)
            yield weather_pb2.ForecastRequest(city=city, hour=answered[-1].hour + 1 if answered else 0)

    watch = Stopwatch()
    for reply in stub.Converse(questions(), metadata=METADATA, timeout=CALL_TIMEOUT_S):
        answered.append(reply)
    came_back = f"{len(answered)} answers, each before the next question"
    is_right = [reply.hour for reply in answered] == [0, 1, 2, 3, 4]
    report.check("bidi stream Converse", is_right, came_back, watch.elapsed_s)


def cancel(stub: weather_pb2_grpc.WeatherStub, report: Report) -> None:
    label = f"cancelled-{time.time_ns()}"
    request = weather_pb2.WatchRequest(city="midtown", hours=100_000, interval_ms=50, label=label)
    stream = stub.Watch(request, metadata=METADATA, timeout=CALL_TIMEOUT_S)
    items = len(list(itertools.islice(stream, 3)))
    cancelled_at_s = time.time()
    stream.cancel()
    seen_at_s = poll(lambda: _seen_at_s(stub, label))
    report.check(f"cancel a stream after {items} items", *describe_stop(seen_at_s, cancelled_at_s))


def deadline(stub: weather_pb2_grpc.WeatherStub, report: Report) -> None:
    label = f"late-{time.time_ns()}"
    request = weather_pb2.ForecastRequest(city="midtown", resamples=LONG_WORK, label=label)
    began_at_s, watch = time.time(), Stopwatch()
    code = _status(lambda: stub.Forecast(request, metadata=METADATA, timeout=DEADLINE_S))
    is_right = code == grpc.StatusCode.DEADLINE_EXCEEDED
    report.check(f"minutes of work in {DEADLINE_S} s", is_right, str(code), watch.elapsed_s)
    seen_at_s = poll(lambda: _seen_at_s(stub, label))
    report.check("that work is stopped", *describe_stop(seen_at_s, began_at_s + DEADLINE_S))


def error(stub: weather_pb2_grpc.WeatherStub, report: Report) -> None:
    watch = Stopwatch()
    request = weather_pb2.ForecastRequest(city="atlantis")
    code = _status(lambda: stub.Forecast(request, metadata=METADATA, timeout=CALL_TIMEOUT_S))
    report.check("a city without a model", code == grpc.StatusCode.NOT_FOUND, str(code), watch.elapsed_s)


def _status(call: Callable[[], object]) -> grpc.StatusCode:
    try:
        call()
    except grpc.RpcError as status:
        return status.code()
    return grpc.StatusCode.OK


def _seen_at_s(stub: weather_pb2_grpc.WeatherStub, label: str) -> float | None:
    reply = stub.Cancellations(weather_pb2.CancellationsRequest(), metadata=METADATA, timeout=CALL_TIMEOUT_S)
    return next((entry.seen_at_s for entry in reply.entries if entry.label == label), None)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
