"""mesh.controller.scaling.reported_loads: whose load counts, and until when (item 233)."""

from mesh.controller.scaling.reported_loads import ReportedLoads
from mesh.controller.scaling.scaling_rule import Load
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2
from tests.unit.controller.builders import KEY

OTHER = DeploymentKey("app", "Other")


def report(
    book: ReportedLoads, process: str, stream: object, now_s: float = 0.0, key: DeploymentKey = KEY, **load: float
) -> None:
    message = control_pb2.DeploymentLoad(deployment={"app": key.app, "name": key.name}, **load)  # type: ignore[arg-type]
    book.report(process, stream, message, now_s)


def test_callers_and_replicas_tell_of_the_same_calls() -> None:
    """The larger sum counts, so that a lost report does not look like idleness (item 227)."""
    book = ReportedLoads()
    report(book, "caller", "c", queued=4, ongoing=6)
    report(book, "gateway", "g", queued=1, ongoing=2)
    assert book.load(KEY) == Load(queued=5, ongoing=8)
    report(book, "replica 1", "r1", executing=4)
    assert book.load(KEY) == Load(queued=5, ongoing=8)
    report(book, "replica 2", "r2", executing=5)
    assert book.load(KEY) == Load(queued=5, ongoing=9)


def test_a_new_report_takes_the_place_of_the_one_before() -> None:
    book = ReportedLoads()
    report(book, "caller", "c", queued=4)
    report(book, "caller", "c", ongoing=1)
    assert book.load(KEY) == Load(ongoing=1)
    report(book, "caller", "c")
    assert book.load(KEY) == Load()


def test_who_disconnects_is_forgotten_at_once() -> None:
    book = ReportedLoads()
    report(book, "caller", "c", queued=4)
    report(book, "caller", "c", key=OTHER, queued=1)
    book.forget("c")
    assert book.load(KEY) == book.load(OTHER) == Load()


def test_who_comes_back_before_the_old_stream_has_ended_counts_once() -> None:
    book = ReportedLoads()
    report(book, "caller", "old stream", queued=4)
    report(book, "caller", "new stream", queued=3)
    book.forget("old stream")
    assert book.load(KEY) == Load(queued=3)


def test_who_falls_silent_is_forgotten_after_a_while() -> None:
    book = ReportedLoads()
    report(book, "silent", "s", now_s=0.0, queued=4)
    report(book, "talkative", "t", now_s=15.0, queued=1)
    report(book, "elsewhere", "e", now_s=15.0, key=OTHER, queued=1)
    book.keep({KEY: 5.0})
    assert book.load(KEY) == Load(queued=1)
    assert book.load(OTHER) == Load()


def test_a_long_stream_keeps_nothing_of_deployments_that_are_gone() -> None:
    """A gateway lives for months, while applications come and go."""
    book = ReportedLoads()
    for number in range(100):
        report(book, "gateway", "g", key=DeploymentKey(f"app {number}", "Model"), queued=1)
    report(book, "gateway", "g", queued=2)
    book.keep({KEY: 0.0})
    assert book._reported == {"g": {(KEY, "gateway")}}
    book.forget("g")
    assert book.load(KEY) == Load()


def test_replicas_tell_more_than_their_load() -> None:
    """Values of `record_autoscaling_stats` are kept for the policy (item 155)."""
    book = ReportedLoads()
    message = control_pb2.DeploymentLoad(deployment={"app": "app", "name": "Model"}, stats={"hunger": 2.0})
    book.report("replica", "r", message, 0.0)
    assert book.stats(KEY) == [{"hunger": 2.0}]
