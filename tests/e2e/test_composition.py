"""Applications made of deployments: functions, applications in containers, equal names, constructors that call."""

from __future__ import annotations

from typing import Any

import pytest

import mesh
from tests.e2e.conftest import Deploy
from tests.e2e.gate import small

Handle = mesh.DeploymentHandle[Any]


@small()
class Named:
    def __init__(self, name: str) -> None:
        self._name = name

    async def __call__(self) -> str:
        return self._name


@small()
class Holder:
    """Applications anywhere in its arguments have become handles, which work in its constructor."""

    async def __init__(self, in_list: list[Handle], in_dict: dict[str, Handle]) -> None:  # type: ignore[misc]
        self._handles = [*in_list, *in_dict.values()]
        self._first = await self._handles[0].remote()

    async def __call__(self) -> list[tuple[str, str]]:
        return [(handle.deployment_name, await handle.remote()) for handle in self._handles]

    async def first(self) -> str:
        return self._first


@small(max_ongoing_requests=100)
def greet(name: str) -> str:
    return f"hello {name}"


def test_a_function_is_a_deployment(deploy: Deploy) -> None:
    """It has no constructor (item 89)."""
    assert deploy(greet.bind(), "function").remote("you").result(timeout_s=10) == "hello you"


def test_applications_in_containers_are_handles(deploy: Deploy, caplog: pytest.LogCaptureFixture) -> None:
    """Two bindings are two deployments, one binding used twice is one (items 96–99)."""
    one = Named.bind("one")
    holder = deploy(Holder.bind([one, Named.bind("two")], {"again": one}), "holder")
    assert "becomes 'Named_1'" in caplog.text
    assert holder.remote().result(timeout_s=10) == [("Named", "one"), ("Named_1", "two"), ("Named", "one")]
    assert holder.first.remote().result(timeout_s=10) == "one"
    with pytest.raises(KeyError, match="'Named_2' of application 'holder' does not exist"):
        mesh.get_deployment_handle("Named_2", "holder")
    assert deploy(Named.bind("elsewhere"), "same-name").remote().result(timeout_s=10) == "elsewhere"
