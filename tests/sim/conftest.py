"""How simulations run: in fake time, where they wait for nothing, so what one may take is CPU time (`fake_time.py`)."""

import inspect
from pathlib import Path

import pytest

from tests.sim.fake_time import run_in_fake_time

TIMEOUT_S = 600
"""Of a machine that is busy with something else."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test of this folder that is a coroutine is a scenario: it runs to its end in a loop of fake time of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    run_in_fake_time(pyfuncitem.obj(**arguments))
    return True
