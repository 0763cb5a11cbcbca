"""The rows of the table, measured on one running system."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from benchmarks.echo_pb2 import StreamRequest
from benchmarks.h2load import run_h2load
from benchmarks.raw_peer import STREAM_ITEMS
from benchmarks.raw_process import raw_client
from benchmarks.scenario import ARRAY_BYTES, PAYLOAD

HANDLE_IN_FLIGHT = (1, 16, 64)
GATEWAY_STREAMS = (1, 16, 100)

ROWS = {
    **{f"handle_unary_{count}": f"handle unary, {count} in flight, calls/s" for count in HANDLE_IN_FLIGHT},
    "handle_stream": "handle stream, items/s",
    **{f"gateway_unary_{count}": f"gateway unary, m={count}, req/s" for count in GATEWAY_STREAMS},
    "gateway_latency_1": "gateway unary, m=1, median latency, µs",
    "gateway_stream": "gateway stream, items/s",
    "array_10mb": "numpy 10 MB there and back, calls/s",
    "rss_over_bare": "replica RSS over a bare actor with grpc, MB",
    "rss_after_calls": "replica RSS growth over 200,000 calls (quick: 40,000), MB",
    "rss_after_cancels": "same over 20,000 cancelled calls (quick: 4,000), MB",
    "update_longest": "longest call while one replica is updated 5 times, ms",
    "update_failed": "calls that failed meanwhile",
    "kill_longest": "longest answered call when one of two replicas is killed, ms",
    "kill_failed": "calls that failed meanwhile, of 4 under way",
    "start_many": "time until 40 no-op replicas run, s",
}
"""Titles of the rows, in the order of the table."""

Figure = tuple[str, float]


class Deployed(Protocol):
    """One system with the scenario deployed."""

    gateway_address: str
    gateway_headers: dict[str, str]

    def call(self, method: str, *args: Any) -> Any:
        """The result of one method of the caller deployment."""


def measure_handles(system: Deployed, seconds: float) -> Iterator[Figure]:
    for count in HANDLE_IN_FLIGHT:
        yield f"handle_unary_{count}", system.call("unary", count, seconds)
    yield "handle_stream", system.call("stream", seconds)
    yield "array_10mb", system.call("array", seconds)


def measure_gateway(system: Deployed, python: str, seconds: float) -> Iterator[Figure]:
    yield from measure_unary_gateway(system.gateway_address, system.gateway_headers, seconds)
    request = StreamRequest(items=STREAM_ITEMS, body=PAYLOAD).SerializeToString().hex()
    options = ["--request-hex", request]
    for name, value in system.gateway_headers.items():
        options += ["--metadata", f"{name}={value}"]
    yield "gateway_stream", raw_client(python, "stream", system.gateway_address, *options, seconds=seconds)


def measure_unary_gateway(address: str, headers: dict[str, str], seconds: float) -> Iterator[Figure]:
    for count in GATEWAY_STREAMS:
        load = run_h2load(address, headers, count, seconds)
        yield f"gateway_unary_{count}", load.rate
        if count == 1:
            yield "gateway_latency_1", load.latency_median_us


def measure_raw(python: str, address: str, seconds: float) -> Iterator[Figure]:
    """The rows that plain grpc.aio has: unary calls and streams, called directly."""
    for count in HANDLE_IN_FLIGHT:
        yield f"handle_unary_{count}", raw_client(python, "unary", address, "--in-flight", count, seconds=seconds)
    stream = raw_client(python, "stream", address, seconds=seconds)
    yield "handle_stream", stream
    yield "array_10mb", raw_client(python, "unary", address, "--bytes", ARRAY_BYTES, seconds=seconds)
    yield from measure_unary_gateway(address, {}, seconds)
    yield "gateway_stream", stream


def measure_memory(system: Deployed, bare_bytes: Callable[[], int], calls: int, cancels: int) -> Iterator[Figure]:
    """Replica memory after warm-up, compared with a bare actor, then the growth by calls and cancelled calls."""
    system.call("many", calls // 20, 64)
    system.call("many_cancelled", cancels // 20, 64)
    start = system.call("echo_resident_bytes")
    yield "rss_over_bare", megabytes(start - bare_bytes())
    system.call("many", calls, 64)
    after_calls = system.call("echo_resident_bytes")
    yield "rss_after_calls", megabytes(after_calls - start)
    system.call("many_cancelled", cancels, 64)
    yield "rss_after_cancels", megabytes(system.call("echo_resident_bytes") - after_calls)


def megabytes(count: int) -> float:
    return count / 2**20
