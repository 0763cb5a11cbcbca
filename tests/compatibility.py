"""docs/compatibility.md: every item of the serving API with tests that prove it, made from what docstrings cite."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.citations import CONTRACT, ROOT, tests_by_item

DOCUMENT = ROOT / "docs" / "compatibility.md"
ADVICE = "run `python -m tests.documents`, which brings docs/compatibility.md up to date"
UNPROVEN = "not proven yet"
PLANNED = "planned"
_PARTLY = "; a part is planned"
_BEGIN, _END = "<!-- proofs:begin -->\n", "<!-- proofs:end -->"
_ROW = re.compile(r"^\| ([CD]?\d+) \| (.+) \|$", re.MULTILINE)
_TEST = re.compile(r"`(tests/[^`]+)`")
_OTHER_SECTIONS = {"Gateways and HTTP", "gRPC gateway", "Autoscaling", "Commands and configuration files", "Lessons"}
"""Those of docs/contract.md that are not about the API in Python."""


@dataclass(frozen=True)
class Item:
    """One item of the contract."""

    number: str
    section: str
    text: str

    @property
    def is_planned(self) -> bool:
        """Whether nothing of it is there."""
        return self.text.startswith("*(planned)*")

    @property
    def is_partly_planned(self) -> bool:
        return "*(planned)*" in self.text and not self.is_planned


def items_of(contract: str) -> list[Item]:
    """The items of the serving API."""
    found = [
        Item(number, section.partition("\n")[0].strip(), text.strip())
        for section in contract.split("\n## ")[1:]
        for number, text in re.findall(
            r"^- \*\*([CD]?\d+)\.\*\* (.*?)(?=^- \*\*|\Z)", section, re.MULTILINE | re.DOTALL
        )
    ]
    return [each for each in found if each.section not in _OTHER_SECTIONS]


def faults(document: str, contract: str, proofs: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """What the document says wrongly: items that are missing or unknown, tests that are gone or cite something else."""
    items = {each.number: each for each in items_of(contract)}
    rows = _ROW.findall(_made_part(document))
    listed = Counter(number for number, _ in rows)
    yield from (f"item {number} is missing" for number in items if number not in listed)
    yield from (f"item {number} is there {count} times" for number, count in listed.items() if count > 1)
    for number, said in rows:
        tests = _TEST.findall(said)
        if number not in items:
            yield f"item {number} is not in docs/contract.md"
        elif items[number].is_planned is not (said == PLANNED):
            yield f"item {number} is {'planned' if items[number].is_planned else 'not planned any more'}"
        elif not tests and said != PLANNED:
            yield f"item {number} is proven by no test: cite it in the docstring of one"
        yield from (f"item {number}: no test {each} cites it" for each in tests if each not in proofs.get(number, ()))
    if rows and _summary([said for _, said in rows]) not in document:
        yield "its counts are wrong"


def brought_up_to_date(document: str) -> str:
    """The document with a row for each item. Tests that it names stay as long as they cite their item."""
    before, made, after = _parted(document)
    known = {number: _TEST.findall(said) for number, said in _ROW.findall(made)}
    proofs = tests_by_item()
    lines: list[str] = []
    said: list[str] = []
    section = ""
    for item in items_of(CONTRACT.read_text()):
        if item.section != section:
            section = item.section
            lines += ["", f"### {section}", "", "| item | proven by |", "|---|---|"]
        said.append(_said_of(item, proofs.get(item.number, []), known.get(item.number, [])))
        lines.append(f"| {item.number} | {said[-1]} |")
    return f"{before}{_BEGIN}{_summary(said)}\n" + "\n".join(lines) + f"\n{_END}{after}"


def _said_of(item: Item, proofs: Sequence[str], known: Sequence[str]) -> str:
    if item.is_planned:
        return PLANNED
    kept = [each for each in known if each in proofs]
    for is_unit in (True, False):
        some = [each for each in proofs if each.startswith("tests/unit/") is is_unit]
        if some and not any(each in some for each in kept):
            kept.append(some[0])
    return (", ".join(f"`{each}`" for each in kept) or UNPROVEN) + (_PARTLY if item.is_partly_planned else "")


def _summary(said: Sequence[str]) -> str:
    planned = sum(each == PLANNED for each in said)
    unproven = sum(each.removesuffix(_PARTLY) == UNPROVEN for each in said)
    return (
        f"Of {len(said)} items {len(said) - planned - unproven} are proven by a test that cites them, "
        f"{unproven} are {UNPROVEN} and {planned} are {PLANNED}."
    )


def _made_part(document: str) -> str:
    return _parted(document)[1]


def _parted(document: str) -> tuple[str, str, str]:
    before, _, rest = document.partition(_BEGIN)
    made, _, after = rest.partition(_END)
    return before, made, after
