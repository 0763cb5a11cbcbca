"""The rows of the table: their titles in its order, and the figures of one row.

A row of calls has a rate, latencies, and the CPU time per call of each process that works on it, whose keys begin with
the key of the row. A row of streams has the same: its rate and CPU time are of items, its latencies of whole streams.
`measured` says what is measured on which system.
"""

from collections.abc import Iterator, Sequence

from benchmarks.closed_loop import Lap
from benchmarks.raw_peer import STREAM_ITEMS

Figure = tuple[str, float]
"""The key of a row and its value."""

HANDLE_IN_FLIGHT = (1, 16, 64)
GATEWAY_STREAMS = (1, 16, 100)
CONNECTIONS_IDLE = 2_000
STREAMS_IDLE = 10_000
LINKS = 500

ROLES = {"front": "gateway", "caller": "caller", "replica": "replica"}
"""The processes of a row in its titles. For Serve the front is its proxy; raw has a client and a server in their place.

With raw, "front" is the server of a gateway row, "caller" and "replica" are the client and the server of a handle row.
"""
AT_GATEWAY = ("front", "replica")
AT_HANDLE = ("caller", "replica")
AT_TWO_HOPS = ("front", "caller", "replica")


def titles(key: str, title: str, unit: str, roles: Sequence[str]) -> dict[str, str]:
    return {
        key: f"{title}, {unit}",
        f"{key}_p50": f"{title}, median latency, µs",
        f"{key}_p99": f"{title}, 99th percentile, µs",
        **{f"{key}_cpu_{role}": f"{title}, CPU of the {ROLES[role]}, µs per call" for role in roles},
        f"{key}_cpu": f"{title}, CPU of all, µs per call",
    }


def stream_titles(key: str, title: str, roles: Sequence[str]) -> dict[str, str]:
    """Of a row whose rate and CPU time are of items, and whose times are of whole streams."""
    return {
        key: f"{title}, items/s",
        f"{key}_p50": f"{title}, median time of a stream of {STREAM_ITEMS:,} items, µs",
        f"{key}_p99": f"{title}, 99th percentile of that, µs",
        **{f"{key}_cpu_{role}": f"{title}, CPU of the {ROLES[role]}, µs per item" for role in roles},
        f"{key}_cpu": f"{title}, CPU of all, µs per item",
    }


def figures(key: str, lap: Lap, cpu_us: dict[str, float]) -> Iterator[Figure]:
    """The figures of one row of calls or streams, in the order of its titles."""
    yield key, lap.rate
    yield f"{key}_p50", lap.p50_us
    yield f"{key}_p99", lap.p99_us
    for role, value in cpu_us.items():
        yield f"{key}_cpu_{role}", value
    yield f"{key}_cpu", sum(cpu_us.values())


def _handle_titles() -> Iterator[tuple[str, str]]:
    for count in HANDLE_IN_FLIGHT:
        yield from titles(f"handle_unary_{count}", f"handle unary, {count} in flight", "calls/s", AT_HANDLE).items()


def _gateway_titles() -> Iterator[tuple[str, str]]:
    for count in GATEWAY_STREAMS:
        yield from titles(f"gateway_unary_{count}", f"gateway unary, m={count}", "req/s", AT_GATEWAY).items()


ROWS = {
    **dict(_handle_titles()),
    **stream_titles("handle_stream", "handle stream", AT_HANDLE),
    **dict(_gateway_titles()),
    **titles("gateway_connections_64", "gateway unary, m=100 on each of 64 connections", "req/s", AT_GATEWAY),
    **titles("gateway_two_hops", "gateway → A → B, m=100", "req/s", AT_TWO_HOPS),
    **stream_titles("gateway_stream", "gateway stream", AT_GATEWAY),
    **titles("gateway_1mib", "gateway, 1 MiB there and back, m=1", "req/s", AT_GATEWAY),
    **titles("gateway_3mb", "gateway, 3 MB there and back, m=1", "req/s", AT_GATEWAY),
    **titles("http_noop_1", "HTTP no-op, 1 connection", "req/s", AT_GATEWAY),
    **titles("http_noop_64", "HTTP no-op, 64 connections", "req/s", AT_GATEWAY),
    **titles("http_plain_64", "HTTP no-op of __call__, 64 connections", "req/s", AT_GATEWAY),
    **titles("http_json_64", "gRPC method by JSON, 64 connections of HTTP/1.1", "req/s", AT_GATEWAY),
    **titles("http_json_m100", "gRPC method by JSON, m=100 of HTTP/2", "req/s", AT_GATEWAY),
    **titles("http_1mb", "HTTP, 1 MB there and back, 1 connection", "req/s", AT_GATEWAY),
    **titles("http_stream_16", "HTTP, answers of 50 chunks, 16 connections", "req/s", AT_GATEWAY),
    **titles("http_websocket_64", "WebSocket messages there and back, 64 sockets", "messages/s", AT_GATEWAY),
    **titles("gateway_tls_100", "gateway unary, m=100, TLS, without Ray", "req/s", AT_GATEWAY),
    **titles("array_10mb", "numpy 10 MB there and back", "calls/s", AT_HANDLE),
    "rss_over_bare": "replica RSS over a bare actor with grpc, MB",
    "rss_after_calls": "replica RSS growth over 200,000 calls (quick: 40,000), MB",
    "rss_after_cancels": "same over 20,000 cancelled calls (quick: 4,000), MB",
    "rss_after_gateway_calls": "gateway and replica RSS growth over 1,000,000 gateway calls (quick: 100,000), MB",
    "rss_after_gateway_cancels": "same over 100,000 cancelled gateway calls (quick: 10,000), MB",
    "rss_gateway": "gateway RSS, idle, MB",
    "rss_gateway_streams": f"gateway RSS with {STREAMS_IDLE:,} idle streams, MB",
    "stream_kib": f"gateway memory per idle stream, of {STREAMS_IDLE:,}, KiB",
    "stream_kib_replica": "same of the replica, KiB",
    "connection_kib": f"gateway memory per idle connection, of {CONNECTIONS_IDLE:,}, without Ray, KiB",
    "link_kib_caller": f"memory per link, of {LINKS:,}, at the caller, without Ray, KiB",
    "link_kib_replica": "same at the replica, KiB",
    "update_longest": "longest call while one replica is updated 5 times, ms",
    "update_failed": "calls that failed meanwhile",
    "kill_longest": "longest answered call when one of two replicas is killed, ms",
    "kill_failed": "calls that failed meanwhile, of 4 under way",
    "start_many": "time until 40 no-op replicas run, s",
}
"""Titles of the rows, in the order of the table."""
