"""The I/O thread and its mailboxes: everything posted runs once, in order, and a failure stops no other."""

import asyncio
import threading
from collections import defaultdict
from contextvars import ContextVar, copy_context

import pytest

from mesh.http2.write_turn import ENOUGH, write_turn
from mesh.replica.user_loop import UserLoop
from mesh.wire.io_thread import Mailbox, io_thread, mailbox_of
from tests.unit.fakes.small_mesh import do_on_io, on_io, until

DEADLINE_S = 30.0
TENANT: ContextVar[str | None] = ContextVar("tenant", default=None)


def test_posts_of_many_threads_run_once_and_in_the_order_of_each() -> None:
    ran: dict[int, list[int]] = defaultdict(list)
    numbers = range(5000)

    def post(thread: int) -> None:
        for number in numbers:
            io_thread().post(ran[thread].append, number)

    threads = [threading.Thread(target=post, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    until(lambda: sum(map(len, ran.values())) == 4 * len(numbers), "all posts")
    assert all(each == list(numbers) for each in ran.values())


def test_a_batch_wakes_the_loop_once() -> None:
    class Loop:
        wakes = 0

        def call_soon_threadsafe(self, drain: object, context: object) -> None:
            self.wakes += 1

    loop = Loop()
    mailbox = Mailbox(loop)  # type: ignore[arg-type]
    for _ in range(10):
        mailbox.post(print)
    assert loop.wakes == 1
    mailbox._items.clear()
    mailbox._drain()
    mailbox.post(print)
    assert loop.wakes == 2


def test_what_a_batch_of_posts_sends_is_written_together_and_early_where_it_is_much() -> None:
    """A peer gets the first calls of a large batch while the others are still being packed."""
    events: list[str] = []

    def send() -> None:
        turn = write_turn()
        if "due" not in events[-1:]:
            turn.add(lambda: events.append("written"))
        events.append("due")
        turn.waiting += 1

    def post_all() -> None:
        for _ in range(2 * ENOUGH + 1):
            io_thread().post(send)

    do_on_io(post_all)
    until(lambda: events.count("written") == 3, "all writes")
    assert events == (["due"] * ENOUGH + ["written"]) * 2 + ["due", "written"]


def test_a_post_that_fails_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    ran: list[int] = []

    async def scenario() -> None:
        io_thread().post(int, "no number")
        io_thread().post(ran.append, 1)

    on_io(scenario())
    until(lambda: ran, "the second post")
    assert "failed" in caplog.text


def test_call_runs_at_once_on_the_thread_itself() -> None:
    ran: list[int] = []
    do_on_io(lambda: (io_thread().call(ran.append, 1), ran.append(2)))
    assert ran == [1, 2]


def test_run_gives_up_in_time_and_cancels() -> None:
    cancelled = threading.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(TimeoutError):
        io_thread().run(hang(), 0.01)
    assert cancelled.wait(DEADLINE_S)


def test_a_task_that_tries_to_end_the_process_does_not_end_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    async def leave() -> None:
        raise SystemExit(1)

    io_thread().submit(leave())
    until(lambda: "tried to end the process" in caplog.text, "the attempt")
    assert do_on_io(lambda: "still here") == "still here"


def test_every_loop_of_a_thread_has_its_own_mailbox() -> None:
    async def mailbox() -> Mailbox:
        loop = asyncio.get_running_loop()
        assert mailbox_of(loop) is mailbox_of(loop)
        return mailbox_of(loop)

    assert asyncio.run(mailbox()) is not asyncio.run(mailbox())


def test_posts_to_a_closed_loop_are_dropped() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    mailbox = Mailbox(loop)
    for _ in range(3):
        mailbox.post(print)
        assert not mailbox._items


def test_nothing_on_the_loop_sees_the_variables_of_the_code_that_asked_for_it() -> None:
    """Tasks and connections outlive the request that happened to need them first."""
    seen: list[str | None] = []

    async def look() -> None:
        seen.append(TENANT.get())

    def ask() -> None:
        TENANT.set("a")
        io_thread().post(lambda: seen.append(TENANT.get()))
        io_thread().post(lambda: io_thread().spawn(look(), "look"))
        io_thread().submit(look()).result(DEADLINE_S)
        io_thread().run(look(), DEADLINE_S)

    async def spawn_on_the_loop() -> None:
        TENANT.set("a")
        await io_thread().spawn(look(), "look")

    copy_context().run(ask)
    on_io(spawn_on_the_loop())
    until(lambda: len(seen) == 5, "all to look")
    assert seen == [None] * 5


def test_the_thread_does_not_wait_for_itself() -> None:
    async def wait() -> None:
        coroutine = asyncio.sleep(0)
        try:
            io_thread().run(coroutine)
        finally:
            coroutine.close()

    with pytest.raises(RuntimeError, match="never end"):
        on_io(wait())


@pytest.mark.parametrize(
    ("callback", "error", "is_logged"),
    [
        ("PollerCompletionQueue._handle_events", BlockingIOError(), False),
        ("PollerCompletionQueue._handle_events", ValueError(), True),
        ("Users._callback", BlockingIOError(), True),
    ],
)
def test_the_loops_of_grpc_aio_wake_each_other_without_a_traceback(
    caplog: pytest.LogCaptureFixture, callback: str, error: Exception, is_logged: bool
) -> None:
    """Of a process whose user code has clients of grpc.aio: each event wakes all loops, and one finds it."""
    user = UserLoop(is_isolated=True, threads_max=1)
    for loop in (io_thread().loop, user.loop):
        caplog.clear()
        loop.call_exception_handler({"message": f"Exception in callback {callback}", "exception": error})
        assert bool(caplog.records) is is_logged
    user.close(DEADLINE_S)
