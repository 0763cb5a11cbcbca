"""What type checkers find in users' code: the README, docs/, examples/ and others pass `mypy --strict`."""

import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

from tests.documents import DOCUMENTS, ROOT, Block, blocks_of
from tests.e2e.test_first_hour import SERVICE

TYPED_USER = Path(__file__).with_name("typed_user.py")
MYPY_TIMEOUT_S = 110


def test_users_code_passes_mypy_strict(tmp_path: Path) -> None:
    """With the types that it should have (item 20)."""
    project = tmp_path / "project"
    shutil.copytree(ROOT / "examples", project / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(TYPED_USER, project)
    (project / "first_hour.py").write_text(SERVICE)
    for document in DOCUMENTS:
        if blocks := blocks_of(document, "python"):
            (project / f"{document.stem.lower().replace('-', '_')}_document.py").write_text(module_of(blocks))
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\n[mypy-google.rpc.*]\nfollow_untyped_imports = True\n")
    checked = subprocess.run(
        [
            sys.executable, "-m", "mypy", "--strict", "--python-executable", environment(tmp_path / "environment"),
            "--cache-dir", ROOT / ".mypy_cache" / "users", f"--config-file={config}", ".",
        ],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=MYPY_TIMEOUT_S,
        check=False,
    )  # fmt: skip
    if checked.returncode or checked.stderr:
        pytest.fail(checked.stdout + checked.stderr, pytrace=False)
    assert "Success: no issues found" in checked.stdout


def test_type_checkers_find_both_packages() -> None:
    """In a wheel by a `py.typed`; in an editable install because that is a path, which takes `package-dir`."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert setuptools["package-dir"] == {"": "."}
    assert setuptools["package-data"] == {
        "mesh": ["py.typed", "inference/protocol/open_inference.binpb"],
        "gateway": ["py.typed", "openapi/assets/*"],
    }
    assert all((ROOT / package / "py.typed").exists() for package in ("mesh", "gateway"))


def module_of(blocks: list[Block]) -> str:
    """All blocks of a document as one module, each on the lines on which it is in the document."""
    lines: list[str] = []
    for block in blocks:
        lines += [""] * (block.line - 1 - len(lines))
        lines += block.text.splitlines()
    return "\n".join(lines) + "\n"


def environment(place: Path) -> Path:
    """A Python with this checkout installed as `pip install --editable` does it, and everything that it needs."""
    venv.create(place, symlinks=True)
    packages = place / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    (packages / "checkout.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
    return place / "bin" / "python"
