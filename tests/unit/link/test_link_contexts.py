"""A link lives longer than the request that needed it first, and keeps nothing of it."""

import gc
import weakref
from contextvars import ContextVar, copy_context

import pytest

from tests.unit.fakes.raw_peer import Service, replica_of
from tests.unit.fakes.small_mesh import SmallMesh, SmallReplica, on_io

DEADLINE_S = 30.0
pytestmark = pytest.mark.timeout(60)


class Tenant:
    """What a request may keep in a context variable."""


TENANT: ContextVar[Tenant] = ContextVar("tenant")


def test_the_variables_of_the_first_caller_end_with_its_request() -> None:
    tenants: list[weakref.ref[Tenant]] = []

    def connect(replica: SmallReplica) -> SmallMesh:
        tenant = Tenant()
        tenants.append(weakref.ref(tenant))
        TENANT.set(tenant)
        mesh = SmallMesh((replica,))
        assert mesh.handle().remote(1).result(timeout_s=DEADLINE_S) == 1
        return mesh

    with replica_of(Service()) as replica:
        mesh = copy_context().run(connect, replica)
        try:
            assert mesh.handle().remote(2).result(timeout_s=DEADLINE_S) == 2
            gc.collect()
            assert tenants[0]() is None
        finally:
            on_io(mesh.router.close())
