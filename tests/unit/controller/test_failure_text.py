"""mesh.controller.failure_text: users read first what their code raised, then where, and nothing of ours."""

from mesh.controller.failure_text import readable

FAILED = """\x1b[36mray::ReplicaActor.start()\x1b[39m (pid=7, ip=10.0.0.1, repr=<ReplicaActor>)
  File "/usr/lib/python3.11/concurrent/futures/_base.py", line 449, in result
    return self.__get_result()
           ^^^^^^^^^^^^^^^^^^^
  File "/site/mesh/replica/user_object.py", line 67, in _settled
    result = function(*args, **kwargs)
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


def test_texts_without_a_traceback_stay_as_they_are() -> None:
    assert readable("no answer within 3 s\nsecond line\n") == "no answer within 3 s\nsecond line"
    assert readable("") == ""
