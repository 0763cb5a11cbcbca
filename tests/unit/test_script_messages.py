"""Mistakes that a script shows: names that do not exist, classes that are not decorated."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import mesh
from mesh.declarative import import_path


def test_the_namespace_has_the_public_names_only() -> None:
    assert set(dir(mesh)) == {*mesh.__all__, "context"}


@pytest.mark.parametrize(
    ("script", "shown"),
    [
        ("mesh.deploy", "module 'mesh' has no attribute 'deploy'. Did you mean 'deployment'?"),
        (
            "mesh.exceptions.BackpressureError",
            "module 'mesh.exceptions' has no attribute 'BackpressureError'. Did you mean 'BackPressureError'?",
        ),
    ],
)
def test_a_script_shows_one_guess(script: str, shown: str) -> None:
    """Python would add a second one at the end."""
    command = [sys.executable, "-c", f"import mesh; {script}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stderr.rstrip("\n").endswith(f"AttributeError: {shown}")


def test_a_class_that_is_not_decorated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "undecorated_shop.py").write_text("class Shop: ...\n\napp = Shop.bind()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError) as caught:
        import_path.load_application("undecorated_shop:app", {})
    assert str(caught.value).splitlines()[0] == (
        "Importing 'undecorated_shop' failed: AttributeError: type object 'Shop' has no attribute 'bind'. "
        "Decorate the class or function with @mesh.deployment"
    )


DECORATE = "Decorate the class or function with @mesh.deployment"


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("Shop.bind()", f"type object 'Shop' has no attribute 'bind'\n{DECORATE}."),
        ("Shop.options(num_replicas=2)", f"type object 'Shop' has no attribute 'options'\n{DECORATE}."),
        (
            "Shop.remote()",
            f"type object 'Shop' has no attribute 'remote'\n{DECORATE}, then call it through its handle: handle = "
            "mesh.run(deployment.bind(...)).",
        ),
        ("tax.bind()", f"'function' object has no attribute 'bind'\n{DECORATE}."),
        ("Shop().bind", "'Shop' object has no attribute 'bind'"),
        ("Odd.bind", "type object 'Odd' has no attribute 'bind'\nNone"),
    ],
)
def test_a_script_that_does_not_decorate(mistake: str, message: str) -> None:
    """Nothing of the mesh runs there; the hook that the script has set before is called too."""
    script = f"""
        import sys
        def before(*error): print("before"); sys.__excepthook__(*error)
        sys.excepthook = before
        import mesh
        class Shop: ...
        class Meta(type):
            def __getattr__(self, name):
                error = AttributeError("type object 'Odd' has no attribute 'bind'", name=name, obj=self)
                error.__notes__ = None  # no note can be added
                raise error
        class Odd(metaclass=Meta): ...
        def tax(): ...
        {mistake}
        """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (1, "before\n")
    assert ended.stderr.partition("AttributeError: ")[2].rstrip("\n") == message
