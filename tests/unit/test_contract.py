"""docs/contract.md is complete, what is cited exists, and docs/compatibility.md names the test of each item."""

import importlib
import re
from pathlib import Path

import pytest

from tests import citations, compatibility
from tests.citations import (
    CONTRACT,
    ROOT,
    cited_names,
    cited_numbers,
    cited_paths,
    contract_numbers,
    is_well_cited,
    python_prose,
)

NUMBERS = contract_numbers(CONTRACT.read_text())

DANGLING = re.compile(
    r"\b(?:api|design|lessons|beyond|metrics|grpc-conventions)\.md\b"
    r"|\bspec \d|\bdesign (?:section )?§|\bgrpc-conventions\b|\blessons? \d|\bissues? #?\d",
    re.IGNORECASE,
)
"""References to documents that a reader of this repository does not have."""

_NAMED_TEST = re.compile(r"(tests/[\w/]+\.py)::(test_\w+)")
_NAMED_PLACE = re.compile(r"`(\w+)` in `((?:mesh|gateway|tests)/[\w/]+\.py)`")


def test_items_are_numbered_without_gaps() -> None:
    for letter in ("", "C", "D"):
        found = [int(number.removeprefix(letter)) for number in NUMBERS if number.rstrip("0123456789") == letter]
        assert found == list(range(1, len(found) + 1))


def test_each_item_is_there_once() -> None:
    assert sorted(NUMBERS) == sorted(set(NUMBERS))


def test_every_cited_item_is_in_the_contract() -> None:
    unknown = [
        f"{prose.where} cites {number}"
        for prose in citations.all_prose()
        for number in cited_numbers(prose.text)
        if number not in NUMBERS
    ]
    assert unknown == [], "cite an item of docs/contract.md, or state the behaviour there"


def test_every_item_of_the_serving_api_names_a_test_that_proves_it() -> None:
    """One whose test is gone, or cites it no more, fails here, also after the page was made again."""
    document = compatibility.DOCUMENT.read_text()
    wrong = list(compatibility.faults(document, CONTRACT.read_text(), citations.tests_by_item()))
    assert wrong == [], compatibility.ADVICE


def test_the_serving_api_is_all_of_the_contract_but_what_is_about_other_things() -> None:
    found = {item.number for item in compatibility.items_of(CONTRACT.read_text())}
    required = {"252", *(f"C{n}" for n in range(1, 18)), *(f"D{n}" for n in range(1, 12))}
    assert found >= required | {str(n) for n in (*range(1, 200), *range(235, 241))}
    assert found <= set(NUMBERS)


SMALL = "# Contract\n\n## Handles\n\n- **1.** One.\n- **2.** *(planned)* Two.\n- **3.** Three.\n"
PROOFS = {"1": ["tests/unit/test_a.py::test_one"], "3": ["tests/unit/test_a.py::test_three"]}
COUNTS = "Of 3 items 2 are proven by a test that cites them, 0 are not proven yet and 1 are planned.\n"
ONE = "| 1 | `tests/unit/test_a.py::test_one` |"


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ((ONE, "| 2 | planned |", "| 3 | `tests/unit/test_a.py::test_three` |"), []),
        (
            (ONE, "| 2 | planned |", "| 3 | not proven yet |"),
            ["item 3 is proven by no test: cite it in the docstring of one"],
        ),
        ((ONE, "| 3 | not proven yet |"), ["item 2 is missing", "its counts are wrong"]),
        ((ONE, ONE, "| 2 | planned |", "| 3 | not proven yet |"), ["item 1 is there 2 times", "its counts are wrong"]),
        (
            ("| 1 | `tests/unit/test_a.py::test_gone` |", "| 2 | planned |", "| 3 | not proven yet |"),
            ["item 1: no test tests/unit/test_a.py::test_gone cites it"],
        ),
        (
            (ONE, "| 2 | planned |", "| 3 | `tests/unit/test_a.py::test_one` |"),
            ["item 3: no test tests/unit/test_a.py::test_one cites it"],
        ),
        (("| 1 | planned |", "| 2 | planned |", "| 3 | not proven yet |"), ["item 1 is not planned any more"]),
        ((ONE, "| 2 | not proven yet |", "| 3 | planned |"), ["item 2 is planned", "item 3 is not planned any more"]),
        ((ONE, "| 2 | planned |", "| 3 | yes |"), ["item 3 is proven by no test: cite it in the docstring of one"]),
        (
            (ONE, "| 2 | planned |", "| 3 | not proven yet |", "| 4 | planned |"),
            ["item 4 is not in docs/contract.md", "its counts are wrong"],
        ),
    ],
)
def test_faults_of_the_compatibility_page_are_found(rows: tuple[str, ...], found: list[str]) -> None:
    document = "\n".join(("<!-- proofs:begin -->", COUNTS, *rows, "<!-- proofs:end -->\n"))
    wrong = list(compatibility.faults(document, SMALL, PROOFS))
    assert [each for each in wrong if each in found] == found
    assert bool(wrong) is bool(found)


def test_citations_follow_a_sentence() -> None:
    malformed = [f"{prose.where}: {prose.text}" for prose in citations.code_prose() if not is_well_cited(prose.text)]
    assert malformed == [], "write what must hold, then `(item 12)`, `(items 12, 14–16)`, `(C17)` or `(item 12, C17)`"


def test_no_test_is_named_after_a_number() -> None:
    named = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted(ROOT.glob("tests/**/test_*.py"))
        for name in re.findall(r"def (test_\w*_\d+)\(", path.read_text())
    ]
    assert named == [], "cite the item in the docstring"


def test_nothing_refers_to_documents_that_are_not_here() -> None:
    dangling = [
        f"{prose.where}: {match[0]}" for prose in citations.all_prose() for match in DANGLING.finditer(prose.text)
    ]
    assert dangling == [], "write what must hold, and cite an item of docs/contract.md if there is one"


def test_every_path_in_prose_exists() -> None:
    missing = [
        f"{prose.where}: {path}"
        for prose in citations.all_prose()
        for path in cited_paths(prose.text)
        if not (ROOT / path).exists()
    ]
    assert missing == [], "the file was moved or renamed: correct the path"


def test_every_name_that_a_document_finds_in_a_file_is_there() -> None:
    named = {match for document in (ROOT / "docs").glob("*.md") for match in _NAMED_PLACE.findall(document.read_text())}
    gone = [f"`{name}` in {path}" for name, path in sorted(named) if not _is_in(name, ROOT / path)]
    assert len(named) > 10
    assert gone == [], "it was moved or renamed: correct the document"


def _is_in(name: str, path: Path) -> bool:
    return path.is_file() and re.search(rf"\b{name}\b", path.read_text()) is not None


def test_every_test_that_a_document_names_exists() -> None:
    named = {match for document in (ROOT / "docs").glob("*.md") for match in _NAMED_TEST.findall(document.read_text())}
    gone = [
        f"{path}::{name}"
        for path, name in sorted(named)
        if not (ROOT / path).is_file() or f"def {name}(" not in (ROOT / path).read_text()
    ]
    assert len(named) > 50
    assert gone == [], "name another test, or write it"


def test_every_dotted_name_in_code_exists() -> None:
    missing = [
        f"{prose.where}: {name}"
        for prose in citations.code_prose()
        for name in cited_names(prose.text)
        if not _exists(name)
    ]
    assert missing == [], "the module or what is in it was renamed: correct the name"


def _exists(name: str) -> bool:
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:count])
        if path.is_dir() or path.with_suffix(".py").exists():
            return _has(".".join(parts[:count]), parts[count:])
    return False


def _has(module: str, attributes: list[str]) -> bool:
    found: object = importlib.import_module(module) if attributes else None
    for attribute in attributes:
        if not hasattr(found, attribute):
            return False
        found = getattr(found, attribute)
    return True


def test_tests_cite_the_contract() -> None:
    """If this fails the readers below find nothing, and the tests above prove nothing."""
    cited = [number for prose in citations.code_prose() for number in cited_numbers(prose.text)]
    assert len(cited) > 300


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Holds (item 12).", ["12"]),
        ("Item 12: it holds.", ["12"]),
        ("Holds (items 12, 13 and 15).", ["12", "13", "15"]),
        ("Holds (items 12–14).", ["12", "13", "14"]),
        ("Holds (items 9, 12 to 14; C17).", ["12", "13", "14", "9", "C17"]),
        ("Holds (D2, L20).", ["D2", "L20"]),
        ("Nine items 12%, an item of 12, version C1x, `C2`, mesh/C3.", []),
    ],
)
def test_citations_are_read(text: str, numbers: list[str]) -> None:
    assert cited_numbers(text) == numbers


@pytest.mark.parametrize(
    ("text", "is_good"),
    [
        ("It holds.", True),
        ("It holds (item 12).", True),
        ("It holds (items 12, 14–16, C17, L20), always.", True),
        ("It holds (C17).", True),
        ("(item 12).", False),
        ("Item 12: it holds.", False),
        ("It holds (items 12).", False),
        ("It holds (items 12 and 13).", False),
        ("It holds as C17 says.", False),
    ],
)
def test_one_form_of_citation_is_accepted(text: str, is_good: bool) -> None:
    assert is_well_cited(text) is is_good


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("see mesh/status.py.", ["mesh/status.py"]),
        ("in `docs/` and (tests/unit/test_docs.py)", ["docs/", "tests/unit/test_docs.py"]),
        ("mesh/**/*.py, a handle/gateway, /mesh/v1, x.mesh/status.py", []),
        ("tests/nodes or mesh/wire", []),
    ],
)
def test_paths_are_read(text: str, paths: list[str]) -> None:
    assert cited_paths(text) == paths


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("mesh.status, as mesh.api.run says.", ["mesh.status", "mesh.api.run"]),
        ("mesh.yaml, /mesh.v1/Link, x.mesh.api and the mesh. Tests.", []),
    ],
)
def test_dotted_names_are_read(text: str, names: list[str]) -> None:
    assert cited_names(text) == names


@pytest.mark.parametrize(
    ("name", "exists"),
    [("mesh.api", True), ("mesh.wire", True), ("mesh.api.run", True), ("mesh.apt", False), ("mesh.api.rum", False)],
)
def test_dotted_names_are_looked_up(name: str, exists: bool) -> None:
    assert _exists(name) == exists


def test_items_of_a_contract_are_read() -> None:
    text = "# Contract\n\n- **1.** One.\n  More.\n- **C2.** Two, see **3.** there.\n- **4** no\n- **L20.** Lesson.\n"
    assert contract_numbers(text) == ["1", "C2", "L20"]


def test_prose_of_code_is_its_docstrings_and_comments() -> None:
    source = (
        '"""Module."""\nx = "item 999"  # first\n# and second\ny = 1\n"""Of y."""\ndef f():\n    """Item\n    3."""\n'
    )
    prose = {(each.line, each.text) for each in python_prose("f.py", source)}
    assert prose == {(1, "Module."), (2, "first and second"), (5, "Of y."), (7, "Item 3.")}


@pytest.mark.parametrize("text", ["as api.md says", "spec 186–188", "Issue 3, 7: fast", "lesson 24", "design.md §8"])
def test_dangling_references_are_recognized(text: str) -> None:
    assert DANGLING.search(text)
