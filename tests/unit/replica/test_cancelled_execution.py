"""A cancel at any moment of an execution ends it in exactly one outcome."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mesh.exceptions import CancelReason
from mesh.link.outgoing_call import CallRequest
from mesh.replica.execution import Execution
from mesh.replica.user_methods import Kind, Method
from mesh.rpc.status_codes import CANCELLED
from mesh.wire.outcome import Outcome
from mesh.wire.request_context import RequestContext


def started(function: Callable[[], Awaitable[None]], outcomes: list[Outcome]) -> Execution:
    """An execution whose task is made, but has not taken its first step."""
    request = CallRequest("work", None, RequestContext("request-1"))
    call: Any = SimpleNamespace(request=request, started_at_s=0.0)
    user_loop: Any = SimpleNamespace(loop=asyncio.get_running_loop(), post=_call, to_io=_call)
    counts: Any = SimpleNamespace(cancelled=0)
    method = Method("work", function, Kind.ASYNC)
    execution = Execution(call, method, user_loop, counts, lambda _, outcome: outcomes.append(outcome))
    execution.hand_over()
    return execution


def _call(function: Callable[..., None], *args: Any) -> None:
    function(*args)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_cancel_ends_a_call_however_little_of_it_has_run(steps: int) -> None:
    outcomes: list[Outcome] = []

    async def scenario() -> None:
        execution = started(asyncio.Event().wait, outcomes)
        for _ in range(steps):
            await asyncio.sleep(0)
        execution.cancel(CancelReason.CLIENT)
        assert execution.task is not None
        await asyncio.wait([execution.task])

    asyncio.run(scenario())
    assert [outcome.code for outcome in outcomes] == [CANCELLED]


def test_user_code_does_not_run_when_the_cancel_came_first() -> None:
    outcomes: list[Outcome] = []
    has_run = []

    async def work() -> None:
        has_run.append(True)

    async def scenario() -> None:
        execution = started(work, outcomes)
        execution.cancel(CancelReason.CLIENT)
        assert execution.task is not None
        await execution.task

    asyncio.run(scenario())
    assert not has_run
    assert len(outcomes) == 1
