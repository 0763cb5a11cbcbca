"""`def` endpoints of an ASGI application run in as many threads as the replica takes requests."""

from __future__ import annotations

import threading

from fastapi import FastAPI

import mesh
from tests.unit.web.web_calls import DEADLINE_S, web_replica

REQUESTS = 45
"""More than Starlette's own limit, which is 40."""
app = FastAPI()
together = threading.Barrier(REQUESTS)


@mesh.ingress(app)
class Meeting:
    @app.get("/")
    def wait(self) -> int:
        from tests.unit.web import test_web_threads

        return test_web_threads.together.wait(DEADLINE_S)


def test_a_limit_that_was_raised_holds_for_def_endpoints_too() -> None:
    """All of them meet, which takes as many threads (items 147, 187)."""
    with web_replica(Meeting, threads_max=10) as replica:
        replica.user_loop.set_threads_max(REQUESTS)
        replica.user_loop.post(replica.object.set_threads_max, REQUESTS)
        calls = [replica.start(path="/") for _ in range(REQUESTS)]
        assert sorted(int(each.response().text) for each in calls) == list(range(REQUESTS))
