"""The option `session_id` of handles, over real links."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from mesh.context import REQUEST, Request, current_request
from mesh.handle import DeploymentHandle
from mesh.wire.request_context import RequestContext
from tests.unit.fakes.small_mesh import SmallMesh, mesh_of
from tests.unit.handle.store import result

pytestmark = pytest.mark.timeout(60)


class Worker:
    def __init__(self, name: str) -> None:
        self._name = name

    async def name(self) -> str:
        return self._name

    async def tenant(self) -> str:
        request = current_request()
        assert request is not None
        return request.tenant


def replicas_of(mesh: SmallMesh, session_id: str) -> set[str]:
    """Those that ten calls of the session reach."""
    handle = mesh.handle("name", session_id=session_id)
    return {result(handle.remote()) for _ in range(10)}


def test_calls_of_a_session_go_to_one_replica_and_sessions_spread_over_all() -> None:
    """From each process to the same one, since its id alone decides (items 19, 206)."""
    with mesh_of(*map(Worker, "abcd")) as mesh:
        reached = [replicas_of(mesh, f"session {number}") for number in range(40)]
        assert all(len(replicas) == 1 for replicas in reached)
        assert set.union(*reached) == set("abcd")
        assert len(replicas_of(mesh, "")) > 1


def test_tenants_without_a_session_go_to_replicas_of_their_own() -> None:
    """As sessions do, and a session within a tenant counts more (item 206)."""
    with mesh_of(*map(Worker, "abcd")) as mesh:

        def reached(**options: str) -> set[str]:
            handle = mesh.handle("name", **options)
            return {result(handle.remote()) for _ in range(10)}

        tenants = [reached(tenant=f"tenant {number}") for number in range(40)]
        assert all(len(replicas) == 1 for replicas in tenants)
        assert set.union(*tenants) == set("abcd")
        assert len(set.union(*(reached(tenant="acme", session_id=f"{number}") for number in range(40)))) == 4


def test_calls_made_for_a_request_are_for_its_tenant() -> None:
    """Unless their handle names another (item 206)."""
    with mesh_of(Worker("a")) as mesh:
        token = REQUEST.set(Request(RequestContext("id", tenant="acme")))
        try:
            assert result(mesh.handle("tenant").remote()) == "acme"
            assert result(mesh.handle("tenant", tenant="globex").remote()) == "globex"
        finally:
            REQUEST.reset(token)
        assert result(mesh.handle("tenant").remote()) == ""


def test_handles_keep_the_session_when_they_are_derived_and_pickled() -> None:
    handle: DeploymentHandle[Any] = DeploymentHandle("Store", "shop").options(session_id="s").buy
    assert handle._options.session_id == "s"
    assert pickle.loads(pickle.dumps(handle))._options == handle._options
    assert handle.options(session_id="")._options.session_id == ""


@pytest.mark.parametrize(("value", "error"), [(7, TypeError), (None, TypeError), ("\ud800", ValueError)])
def test_wrong_session_ids_are_refused(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="session_id"):
        DeploymentHandle("Store", "shop").options(session_id=value)
