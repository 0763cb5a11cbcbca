"""mesh.replica.replica: what a running replica takes over of another configuration."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mesh.context import get_replica_context, set_replica_context
from mesh.replica.replica import ReplicaProcess
from mesh.v1 import common_pb2, control_pb2
from mesh.wire.io_thread import io_thread


@pytest.fixture
def outside_again() -> Iterator[None]:
    yield
    set_replica_context(None)


def spec_with(max_ongoing_requests: int) -> control_pb2.ReplicaSpec:
    options = control_pb2.DeploymentOptions(max_ongoing_requests=max_ongoing_requests, isolate_user_loop=True)
    return control_pb2.ReplicaSpec(
        replica_id="r1",
        deployment=common_pb2.DeploymentId(app="shop", name="Stock"),
        config_version=f"c{max_ongoing_requests}",
        spec=control_pb2.DeploymentSpec(name="Stock", version="v1", options=options),
    )


@pytest.mark.usefixtures("outside_again")
def test_the_context_of_a_replica_has_the_limit_of_now() -> None:
    """Code that reads it, as batched functions do, sees the limit that a changed configuration has (items 130, 187)."""

    async def scenario() -> None:
        replica = ReplicaProcess(spec_with(4))
        await replica.reconfigure(spec_with(8))
        context = get_replica_context()
        assert (context.max_ongoing_requests, context.replica_tag, context.deployment) == (8, "r1", "Stock")
        await replica.drain()

    io_thread().submit(scenario()).result(10)
