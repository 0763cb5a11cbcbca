"""What the break of a link means for the calls on it, at both ends."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.exceptions import MeshException, ReplicaUnavailableError
from tests.unit.fakes.raw_peer import DEADLINE_S, Service, end_of
from tests.unit.fakes.small_mesh import mesh_of, on_io, until

pytestmark = pytest.mark.timeout(60)


def test_a_killed_replica_fails_what_it_executes_and_nothing_else() -> None:
    services = Service(), Service()
    with mesh_of(*services, limit=50) as mesh:
        hanging = [mesh.handle("hang").remote() for _ in range(200)]
        until(lambda: sum(service.started for service in services) == 100, "both replicas to be full")
        mesh.replicas[0].kill()
        until(lambda: sum(_has_ended(response) for response in hanging) == 50, "the end of what it executed")
        for error in [end_of(response) for response in hanging if _has_ended(response)]:
            assert isinstance(error, ReplicaUnavailableError)
            assert error.replica_id == mesh.replicas[0].replica_id
            assert error.replica_id in str(error)
            assert error.maybe_executed
        until(lambda: services[1].started == 50, "the other replica to go on")
        for response in hanging:
            response.cancel()
        until(lambda: mesh.replicas[0].is_idle, "the killed replica's calls to be cancelled")
        mesh.replicas.pop(0).close()
        mesh.publish()
        mesh.assert_idle()


def _has_ended(response: Any) -> bool:
    return response._future.outcome is not None


def test_calls_that_had_not_left_succeed_elsewhere() -> None:
    """The link to the first replica is held up before it writes; then it breaks."""
    services = Service(), Service()
    with mesh_of(*services) as mesh:
        endpoints = list(mesh.endpoints.values())
        stuck = endpoints[0].link
        assert stuck is not None
        assert stuck._writer is not None
        writer: Any = stuck._writer
        writer.write = lambda: None
        large = [mesh.handle().remote(b"x" * 2_000_000) for _ in range(4)]
        small = [mesh.handle().remote(number) for number in range(100)]
        mesh.replicas[0].kill()
        ends = [end_of(response) for response in (*small, *large)]
        assert not [end for end in ends if isinstance(end, MeshException)]
        assert services[0].started == 0
        mesh.replicas.pop(0).close()
        mesh.assert_idle()


def test_a_link_that_cannot_write_breaks_and_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    with mesh_of(Service()) as mesh:
        (endpoint,) = mesh.endpoints.values()
        assert endpoint.link is not None
        writer: Any = endpoint.link._writer

        def fail() -> bytes:
            raise ZeroDivisionError("a defect")

        writer._next_message = fail
        response = mesh.handle().remote(1)
        assert response.result(timeout_s=DEADLINE_S) == 1, "it had not left: the next link carries it"
        assert "a defect" in caplog.text


def test_an_idempotent_call_is_repeated_where_it_may_have_run() -> None:
    services = Service(), Service()
    with mesh_of(*services) as mesh:
        hanging = [mesh.handle("hang", idempotent=True).remote() for _ in range(20)]
        until(lambda: services[0].started + services[1].started == 20, "all to run")
        on_first = services[0].started
        mesh.replicas[0].kill()
        until(lambda: services[1].started == 20, "all to run on the other")
        assert on_first
        for response in hanging:
            response.cancel()
        mesh.replicas.pop(0).close()
        mesh.assert_idle()


def test_a_restarted_link_is_used_again() -> None:
    with mesh_of(Service()) as mesh:
        replica = mesh.replicas[0]
        replica.kill()
        until(lambda: mesh.router.link_count == 0, "the break to be seen")
        waiting = mesh.handle().remote(7)
        on_io(replica._start())
        assert waiting.result(timeout_s=DEADLINE_S) == 7


def test_a_caller_that_leaves_takes_its_calls_along() -> None:
    service = Service()
    with mesh_of(service) as mesh:
        hanging = [mesh.handle("hang").remote() for _ in range(20)]
        until(lambda: service.started == 20, "all to run")
        on_io(mesh.router.close())
        until(lambda: service.cancelled == 20, "all to be cancelled")
        until(lambda: mesh.replicas[0].is_idle, "their places")
        assert all(isinstance(end_of(response), MeshException) for response in hanging)
