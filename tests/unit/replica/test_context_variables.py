"""What one request sets in a context variable, no other request sees."""

from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from mesh.context import current_request
from tests.unit.fakes.small_mesh import mesh_of

TENANT: ContextVar[str | None] = ContextVar("tenant", default=None)
DEADLINE_S = 30.0


class Service:
    """Methods of every kind that read the tenant and then set it."""

    def plain(self, tenant: str) -> str | None:
        seen = TENANT.get()
        TENANT.set(tenant)
        return seen

    async def coroutine(self, tenant: str) -> str | None:
        return self.plain(tenant)

    def generator(self, tenant: str) -> Iterator[str | None]:
        yield self.plain(tenant)
        yield TENANT.get()

    async def async_generator(self, tenant: str) -> AsyncIterator[str | None]:
        yield self.plain(tenant)
        yield TENANT.get()

    def taken_over(self, tenant: str) -> Any:
        """What a `def` method returns to be awaited belongs to the same request."""
        TENANT.set(tenant)
        return self._tenant_and_request()

    async def _tenant_and_request(self) -> tuple[str | None, bool]:
        return TENANT.get(), current_request() is not None


@pytest.mark.parametrize("is_isolated", [True, False])
@pytest.mark.parametrize("method", ["plain", "coroutine"])
def test_no_variable_crosses_to_the_next_request(method: str, is_isolated: bool) -> None:
    with mesh_of(Service(), limit=1, is_isolated=is_isolated) as mesh:
        seen = [mesh.handle(method).remote(tenant).result(timeout_s=DEADLINE_S) for tenant in ("a", "b", "c")]
    assert seen == [None, None, None]


@pytest.mark.parametrize("method", ["generator", "async_generator"])
def test_a_variable_lasts_as_long_as_its_stream(method: str) -> None:
    with mesh_of(Service(), limit=1) as mesh:
        seen = [list(mesh.handle(method, stream=True).remote(tenant)) for tenant in ("a", "b")]
    assert seen == [[None, "a"], [None, "b"]]


def test_what_a_plain_method_returns_to_be_awaited_keeps_its_variables() -> None:
    with mesh_of(Service(), limit=1) as mesh:
        assert mesh.handle("taken_over").remote("a").result(timeout_s=DEADLINE_S) == ("a", True)
        assert mesh.handle("plain").remote("b").result(timeout_s=DEADLINE_S) is None
