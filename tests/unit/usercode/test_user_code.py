"""mesh.usercode.user_code: what a replica runs travels as bytes, with the search path it needs."""

import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

from mesh.usercode.user_code import UserCode, check_arguments, dumps, pack, unpack
from tests.unit.fakes.memory_peak import memory_peak


class Greeter:
    def __init__(self, word: str, *, loud: bool = False) -> None:
        self.text = word.upper() if loud else word


def _add_nothing(servicer: Any, server: Any) -> None: ...


def test_code_and_arguments_arrive_as_they_were() -> None:
    code = unpack(pack(UserCode(Greeter, ("hello",), {"loud": True}, (_add_nothing,))))
    assert code.callable(*code.init_args, **code.init_kwargs).text == "HELLO"
    assert [function.__name__ for function in code.servicer_functions] == ["_add_nothing"]


def test_functions_of_the_moment_travel_by_value() -> None:
    offset = 3
    assert unpack(pack(UserCode(lambda number: number + offset))).callable(1) == 4


def test_a_module_on_the_packing_process_s_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here_for_the_test.py").write_text("class Model:\n    answer = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here_for_the_test  # type: ignore[import-not-found]

    data = pack(UserCode(only_here_for_the_test.Model))
    program = (
        "import sys; from mesh.usercode.user_code import unpack; data = sys.stdin.buffer.read(); "
        "print(unpack(data).callable.answer)"
    )
    done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True, timeout=60)
    assert done.stdout.strip() == b"42"


def test_the_receiving_process_s_own_path_comes_first() -> None:
    data = pack(UserCode(Greeter, ("x",)))
    before = list(sys.path)
    unpack(data)
    assert sys.path[: len(before)] == before


def test_replacements_reach_any_depth_of_the_arguments() -> None:
    """Lists, dicts and attributes are searched (item 96)."""
    token = Greeter("inner")
    code = UserCode(Greeter, ([{"key": (token,)}],), {"holder": Greeter("outer"), "again": token})
    code.init_kwargs["holder"].text = token

    def replace(value: object) -> object:
        return "replaced" if value is token else value

    arrived = unpack(pack(code, replace))
    assert arrived.init_args == ([{"key": ("replaced",)}],)
    assert arrived.init_kwargs["holder"].text == "replaced"
    assert arrived.init_kwargs["again"] == "replaced"


def test_the_code_itself_is_not_searched_for_replacements() -> None:
    def refuse(value: object) -> object:
        raise AssertionError(value)

    assert unpack(pack(UserCode(lambda: Greeter("x")), refuse)).init_args == ()


def test_what_cannot_be_pickled_is_named() -> None:
    """The error says which deployment and which part (item 75)."""
    with pytest.raises(TypeError, match=r"arguments bound to Greeter cannot be pickled.*lock"):
        pack(UserCode(Greeter, (threading.Lock(),)))
    lock = threading.Lock()
    with pytest.raises(TypeError, match="The Model cannot be pickled"):
        dumps(lambda: lock, "Model")


def test_arguments_are_checked_without_being_kept() -> None:
    """Hundreds of megabytes may be bound: they are pickled when they are sent."""
    taken: list[object] = []
    large = bytes(50_000_000)

    def take(value: object) -> object:
        taken.append(value)
        return value

    with memory_peak() as peak:
        check_arguments(UserCode(Greeter, (Greeter("x"), large)), take)
    assert peak.bytes < 25_000_000
    assert any(isinstance(each, Greeter) for each in taken)
    with pytest.raises(TypeError, match=r"arguments bound to Greeter cannot be pickled.*lock"):
        check_arguments(UserCode(Greeter, (threading.Lock(),)), take)


def test_an_error_of_the_replacement_is_raised_as_it_is() -> None:
    def refuse(value: object) -> object:
        raise LookupError("not that one")

    with pytest.raises(LookupError, match="not that one"):
        pack(UserCode(Greeter, (Greeter("x"),)), refuse)


def test_deployed_code_travels_by_value_although_it_could_be_imported(tmp_path: Path) -> None:
    """Decorated or not: a replica that starts after an edit of the file runs what was deployed (item 77)."""
    module = tmp_path / "edited_later.py"
    module.write_text(
        "class Model:\n    class Part:\n        answer = 42\n\n    def answer(self):\n        return self.Part.answer\n"
    )
    program = "import sys; sys.path.insert(0, sys.argv[1]); from mesh.usercode.user_code import *; "
    packed = run_python(
        program + "import edited_later; sys.stdout.buffer.write(pack(UserCode(edited_later.Model)))", tmp_path
    )
    module.write_text("this is not Python")
    answered = run_python(program + "print(unpack(sys.stdin.buffer.read()).callable().answer())", tmp_path, packed)
    assert answered.strip() == b"42"


def test_deployed_code_of_an_installed_package_is_imported() -> None:
    data = pack(UserCode(textwrap.TextWrapper))
    assert b"textwrap" in data
    assert len(data) < len(pack(UserCode(Greeter)))
    assert unpack(pack(UserCode(tuple))).callable is tuple


def run_python(program: str, argument: Path, given: bytes = b"") -> bytes:
    command = [sys.executable, "-c", program, argument]
    return subprocess.run(command, input=given, capture_output=True, check=True, timeout=60).stdout


def test_the_unpicklable_part_of_deployed_code_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked_module.py").write_text(
        "import threading\n\nlock = threading.Lock()\n\n"
        "class Model:\n    def answer(self):\n        return lock.locked()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import locked_module  # type: ignore[import-not-found]

    with pytest.raises(TypeError, match=r"Model.answer -> global 'lock' used by answer"):
        pack(UserCode(locked_module.Model))
