"""mesh.declarative.import_path: what stands there, and what users read where nothing does."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.declarative.import_path import import_attribute, parse_import_path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name of a package with a module `app` and nothing else."""
    name = "package_for_import_path"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    (tmp_path / name / "app.py").write_text("app = 3")
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    for module in (name, f"{name}.app"):
        sys.modules.pop(module, None)


@pytest.mark.parametrize("separator", [":", "."])
def test_either_separator_will_do(package: str, separator: str) -> None:
    """A colon and a dot mean the same (item 248)."""
    assert import_attribute(f"{package}.app{separator}app") == 3


def test_a_module_alone_is_not_enough(package: str) -> None:
    with pytest.raises(
        ValueError, match=f"{package}.app is a module: name an object in it, for instance {package}.app:app"
    ):
        import_attribute(f"{package}.app")
    with pytest.raises(ValueError, match=f"Module '{package}' has no 'nothing'. Applications in it: none."):
        import_attribute(f"{package}.nothing")


@pytest.mark.parametrize("path", ["shop", ":app", "shop:", "shop.app:app:app", "shop app:app", "", None])
def test_what_is_no_import_path(path: object) -> None:
    with pytest.raises(ValueError, match=r"is not MODULE:APP: write for instance shop.app:app"):
        parse_import_path(path)
