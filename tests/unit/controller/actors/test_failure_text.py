"""mesh.controller.actors.failure_text: users read first what their code raised, then where, and nothing of ours."""

from mesh.controller.actors.failure_text import readable, readable_death

FAILED = """\x1b[36mray::ReplicaActor.start()\x1b[39m (pid=7, ip=10.0.0.1, repr=<ReplicaActor>)
  File "/usr/lib/python3.11/concurrent/futures/_base.py", line 449, in result
    return self.__get_result()
           ^^^^^^^^^^^^^^^^^^^
  File "/site/mesh/replica/user_object.py", line 67, in _settled
    result = function(*args, **kwargs)
  File "/site/mesh/wire/io_thread.py", line 112, in _run
    self.loop.run_forever()
  File "uvloop/loop.pyx", line 1371, in uvloop.loop.Loop.run_forever
  File "/home/me/shop.py", line 6, in __init__
    raise FileNotFoundError("model.bin is not there")
FileNotFoundError: model.bin is not there
try another one"""


def test_what_was_raised_comes_first_and_then_the_users_own_frames() -> None:
    assert readable(FAILED).splitlines() == [
        "FileNotFoundError: model.bin is not there",
        "try another one",
        '  File "/home/me/shop.py", line 6, in __init__',
        '    raise FileNotFoundError("model.bin is not there")',
    ]


def test_the_cause_of_a_chained_exception_stays() -> None:
    chained = (
        'ray::A.start()\nTraceback (most recent call last):\n  File "/me/a.py", line 1, in f\n    g()\n'
        "KeyError: 'x'\n\nThe above exception was the direct cause of the following exception:\n\n"
        'Traceback (most recent call last):\n  File "/me/b.py", line 2, in h\n    f()\nValueError: no x'
    )
    assert readable(chained).splitlines() == [
        "ValueError: no x",
        '  File "/me/a.py", line 1, in f',
        "    g()",
        "KeyError: 'x'",
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        '  File "/me/b.py", line 2, in h',
        "    f()",
    ]


def test_an_endless_recursion_is_named() -> None:
    frame = '  File "/me/a.py", line 1, in f\n    f()\n    ^^^\n'
    text = f"ray::A.start()\n{frame}  [Previous line repeated 990 more times]\nRecursionError: maximum depth exceeded"
    lines = readable(text).splitlines()
    assert lines[0] == "RecursionError: maximum depth exceeded"
    assert lines[-1] == "  [Previous line repeated 990 more times]"


def test_texts_without_a_traceback_stay_as_they_are() -> None:
    assert readable("no answer within 3 s\nsecond line\n") == "no answer within 3 s\nsecond line"
    assert readable("") == ""


DIED = """The actor died unexpectedly before finishing this task.
\tclass_name: ReplicaActor
\tactor_id: 9b9a2b49
\tpid: 15820
\tname: MESH_REPLICA::exits#Exits#3ef50683
\tnamespace: mesh
\tip: 10.0.0.1
The actor is dead because its worker process has died. Worker exit type: {} Worker exit detail: {}"""


def test_a_death_says_what_happened_and_where_to_look() -> None:
    headline, detail = readable_death(DIED.format("SYSTEM_ERROR", "End of file.")).splitlines()
    assert headline == (
        "Its process exited, crashed or was killed (pid 15820 on 10.0.0.1). `mesh logs` shows what it logged; output "
        "of libraries is in the files *-15820.* of Ray's logs there."
    )
    assert detail.endswith("Worker exit type: SYSTEM_ERROR Worker exit detail: End of file.")
    starved = "Task was killed due to the node running low on memory.\nMemory on the node was 9GB / 10GB."
    assert readable_death(starved).splitlines() == [
        "Ray killed its process because the node ran out of memory: let it use less, or ask for `memory`.",
        *starved.splitlines(),
    ]
    assert readable_death("The actor is dead: ray.kill was called\n") == "The actor is dead: ray.kill was called"


def test_the_death_of_a_node_is_one_line() -> None:
    text = (
        "The actor died unexpectedly before finishing this task.\n\tclass_name: ReplicaActor\n\tactor_id: 7d42e8\n"
        "\tpid: 15820\n\tname: mesh/replica/shop\n\tnamespace: mesh\n\tip: 10.0.0.1\n"
        "The actor died because its node has died. Node Id: 0b5e\n"
        "\tthe actor's node was terminated expectedly: received SIGTERM"
    )
    assert readable_death(text) == (
        "The actor died because its node has died. Node Id: 0b5e the actor's node was terminated expectedly: received "
        "SIGTERM"
    )
    bare = "The actor died unexpectedly before finishing this task.\n\tclass_name: ReplicaActor"
    assert readable_death(bare) == bare
